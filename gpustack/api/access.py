"""Lets callers in: who a request acts as, whether that role may, and for how long its login still holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import attrs
import trio

from gpustack.domain.access import NOBODY, AuthMethod, KeyScope, Principal, Role, Session
from gpustack.domain.model import ModelAccess
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import Conflict, Forbidden, NotFound, TooManyRequests, Unauthorized, Unavailable
from gpustack.http1.address import Peer
from gpustack.http1.head import RequestHead
from gpustack.identity.authentication import (
    Credentials,
    LocalAccessRule,
    OwnerCheck,
    PasswordCheck,
    authenticate,
    holds,
    local,
    proven,
    shows_something,
)
from gpustack.identity.passwords import verify_password
from gpustack.identity.sessions import cookie, find_session, is_due
from gpustack.store.transaction import Tx

from . import audit_recorder
from .context import ApiContext
from .problems import problem_of
from .request import ApiRequest

_MUST_CHANGE = (
    "The password must be changed before anything else can be: send current_password and new_password to "
    "/auth/update-password"
)
NOT_LOCAL_ADMIN = (
    "Without a key only root and the user that this GPUStack runs as may do this from its machine: use sudo, or an "
    "API key that may (GPUSTACK_API_KEY for commands)"
)
"""What another user of this machine is told, with both ways out."""
LOGIN_PATH = "/auth/login"
_PEOPLE_TABLES = frozenset({"users", "api_keys", "sessions"})


@attrs.frozen
class AccessGrant:
    """Who is let in, and what the answer must carry for it (a renewed cookie)."""

    principal: Principal
    headers: tuple[tuple[str, str], ...] = ()


async def admit(
    context: ApiContext,
    ask: ApiRequest,
    *,
    allow: frozenset[Role],
    scopes: frozenset[KeyScope],
    before_password_change: bool = False,
    told: Callable[[Principal], None] = lambda principal: None,
) -> AccessGrant:
    """Find out who asks and whether the role may, and its key, which needs one of ``scopes``.

    Where anybody is allowed, who shows nothing gets in as long as there is a public model. Raises ``Unauthorized``,
    ``Forbidden``, ``TooManyRequests``. ``told`` hears who it is, also of one that may not.
    """
    credentials = credentials_of(ask)
    found = await _who(context, ask, credentials, allow)
    if found is NOBODY:
        return AccessGrant(NOBODY)
    told(found)
    _check_rights(found, allow, scopes)
    if found.api_key_id is not None:
        context.key_used(found.api_key_id)
    if found.must_change_password and not before_password_change and found.means is not AuthMethod.LOCAL:
        _refuse_writes(credentials)
    if found.means is AuthMethod.COOKIE:
        return AccessGrant(found, await _renewed(context, credentials))
    return AccessGrant(found)


async def _who(
    context: ApiContext, ask: ApiRequest, credentials: Credentials, allow: frozenset[Role]
) -> Principal:
    """Who asks; ``NOBODY`` where anybody may and nothing is shown."""
    try:
        found = _authenticate(context, credentials)
    except Unauthorized:
        nameless = Role.ANYBODY in allow and not shows_something(credentials)
        if nameless and _has_public_model(context.store.snapshot):
            return NOBODY
        # Another server may have given out a moment ago what is not known here yet.
        said = shows_something(credentials) or credentials.cookie is not None
        if not said or not await context.store.refresh():
            raise
        found = _authenticate(context, credentials)
    match found:
        case PasswordCheck():
            return await _by_password(context, ask, credentials, found)
        case OwnerCheck():
            return local(await ask.owner(), context.store.snapshot, _rule_of(context))
    return found


def _check_rights(found: Principal, allow: frozenset[Role], scopes: frozenset[KeyScope]) -> None:
    if found.role in allow and found.has_scope(*scopes):
        return
    if is_local_guest(found):
        raise Forbidden(NOT_LOCAL_ADMIN)
    if found.role not in allow:
        raise Forbidden
    raise Forbidden(f"This API key may not do this: it needs the scope {' or '.join(sorted(scopes))}")


def is_local_guest(principal: Principal) -> bool:
    """Whether it is a program on this machine of a user who has no account here."""
    return principal.means is AuthMethod.LOCAL and principal.user_id is None


def still_admitted(context: ApiContext, principal: Principal) -> bool:
    """Whether a request that was let in, and goes on, still would be."""
    return holds(principal, context.store.snapshot, context.clock())


def guards_of(principal: Principal) -> frozenset[str]:
    """The tables in which a change may take away what ``admit`` has granted."""
    return frozenset({"workers"}) if principal.worker_id is not None else _PEOPLE_TABLES


def credentials_of(ask: ApiRequest) -> Credentials:
    """What of a request says who sends it."""
    return Credentials.read(ask.header, ask.header_names(), ask.peer, ask.method)


def lifetime(context: ApiContext) -> timedelta:
    """How long a login lasts from its last renewal."""
    return timedelta(minutes=context.rules.session_minutes)


def _rule_of(context: ApiContext) -> LocalAccessRule:
    rules = context.rules
    return LocalAccessRule(trusted=not rules.force_auth_localhost, admins=rules.local_admins)


def _authenticate(context: ApiContext, credentials: Credentials) -> Principal | PasswordCheck | OwnerCheck:
    return authenticate(
        credentials,
        context.store.snapshot,
        keys=context.keys,
        token=context.cluster_token,
        now=context.clock(),
        local_rule=_rule_of(context),
        trusted_origins=context.rules.trusted_origins,
    )


async def _by_password(
    context: ApiContext, ask: ApiRequest, credentials: Credentials, needed: PasswordCheck
) -> Principal:
    name = credentials.basic[0] if credentials.basic else ""
    try:
        with context.login_limiter.attempt(ask.peer, name) as attempt:
            hashed = needed.user.hashed_password if needed.user else None
            if not await verify_password(hashed, needed.password):
                attempt.failed()
                raise Unauthorized
            attempt.succeeded()
        found = proven(needed)
    except (Unauthorized, TooManyRequests) as error:
        _tell_of_guess(context, ask, credentials, problem_of(error).status)
        raise
    except trio.Cancelled:
        _tell_of_guess(context, ask, credentials, audit_recorder.LEFT)
        raise
    if not still_admitted(context, found):  # disabled, or given another password, while this one was verified
        raise Unauthorized
    return found


def _tell_of_guess(context: ApiContext, ask: ApiRequest, credentials: Credentials, status: int) -> None:
    """Whatever it is made for: reading and inference are told of nowhere else."""
    note = audit_recorder.begun(context, ask, "auth.login")
    audit_recorder.tries(note, context, credentials)
    note.ended(status)


def tell_of_unseen(context: ApiContext, head: RequestHead, peer: Peer) -> None:
    """Tell of a password that was sent by who was gone before anybody looked at it, in whatever request."""

    async def no_body() -> bytes:
        return b""

    ask = ApiRequest(
        method=head.method,
        path=head.path,
        header=head.get,
        header_names=head.names,
        peer=peer.host,
        body=no_body,
    )
    credentials = credentials_of(ask)
    if credentials.basic is not None or head.path == LOGIN_PATH:
        _tell_of_guess(context, ask, credentials, audit_recorder.LEFT)


def _has_public_model(snapshot: Snapshot) -> bool:
    return any(model.access is ModelAccess.PUBLIC for model in snapshot.models.values())


def _refuse_writes(credentials: Credentials) -> None:
    if not credentials.is_safe:
        raise Forbidden(_MUST_CHANGE)


async def _renewed(context: ApiContext, credentials: Credentials) -> tuple[tuple[str, str], ...]:
    """The same login for longer, if it ends soon. That it cannot be written now is no reason to refuse a request."""
    now, keys = context.clock(), context.keys
    session = find_session(context.store.snapshot, credentials.cookie, keys=keys, now=now)
    if session is None or not is_due(session, now):
        return ()

    def work(tx: Tx) -> None:
        tx.change(Session, session.id, expires_at=tx.now + lifetime(context))

    try:
        await context.store.write(work)
    except (Unavailable, NotFound, Conflict):
        return ()
    text = cookie(credentials.cookie or "", secure=context.rules.tls, lifetime=lifetime(context))
    return (("Set-Cookie", text),)

"""Admits callers: who a request acts as, whether that role and key may, and for how long its login still holds."""

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
    LocalAccessRule,
    OwnerCheck,
    PasswordCheck,
    authenticate,
    is_still_valid,
    local_principal,
    principal_of_password,
    shows_credential,
)
from gpustack.identity.credentials import Credentials
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
"""For another user of this machine, with both ways out."""
LOGIN_PATH = "/auth/login"
_PEOPLE_TABLES = frozenset({"users", "api_keys", "sessions"})


@attrs.frozen
class AccessGrant:
    """Who is admitted, and the headers that the answer must carry (a renewed cookie)."""

    principal: Principal
    headers: tuple[tuple[str, str], ...] = ()


async def admit(
    context: ApiContext,
    request: ApiRequest,
    *,
    allow: frozenset[Role],
    scopes: frozenset[KeyScope],
    before_password_change: bool = False,
    found: Callable[[Principal], None] = lambda principal: None,
) -> AccessGrant:
    """Find out who sends a request, and check that its role is among ``allow`` and its key has one of ``scopes``.

    Where ``Role.ANYBODY`` is allowed, a request without credentials is admitted as ``NOBODY`` as long as there is a
    public model. ``found`` is called with the principal, also with one that is refused then. Raises ``Unauthorized``,
    ``Forbidden``, ``TooManyRequests``.
    """
    credentials = credentials_of(request)
    principal = await _principal(context, request, credentials, allow)
    if principal is NOBODY:
        return AccessGrant(NOBODY)
    found(principal)
    _check_rights(principal, allow, scopes)
    if principal.api_key_id is not None:
        context.access.key_used(principal.api_key_id)
    must_change = principal.must_change_password and not before_password_change
    if must_change and principal.means is not AuthMethod.LOCAL and not credentials.is_safe:
        raise Forbidden(_MUST_CHANGE)
    if principal.means is AuthMethod.COOKIE:
        return AccessGrant(principal, await _renewed(context, credentials))
    return AccessGrant(principal)


async def _principal(
    context: ApiContext, request: ApiRequest, credentials: Credentials, allow: frozenset[Role]
) -> Principal:
    try:
        found = _authenticate(context, credentials)
    except Unauthorized:
        shows = shows_credential(credentials)
        if Role.ANYBODY in allow and not shows and _has_public_model(context.store.snapshot):
            return NOBODY
        # Another server may have issued the credential a moment ago: look once more at the newest snapshot.
        if not (shows or credentials.cookie is not None) or not await context.store.refresh():
            raise
        found = _authenticate(context, credentials)
    match found:
        case PasswordCheck():
            return await _by_password(context, request, credentials, found)
        case OwnerCheck():
            return local_principal(await request.owner(), context.store.snapshot, _rule_of(context))
    return found


def _check_rights(principal: Principal, allow: frozenset[Role], scopes: frozenset[KeyScope]) -> None:
    if principal.role in allow and principal.has_scope(*scopes):
        return
    if is_local_guest(principal):
        raise Forbidden(NOT_LOCAL_ADMIN)
    if principal.role not in allow:
        raise Forbidden
    raise Forbidden(f"This API key may not do this: it needs the scope {' or '.join(sorted(scopes))}")


def is_local_guest(principal: Principal) -> bool:
    """Whether it is a program on this machine of a user who has no account here."""
    return principal.means is AuthMethod.LOCAL and principal.user_id is None


def still_admitted(context: ApiContext, principal: Principal) -> bool:
    """Whether a request that was admitted, and goes on, still would be."""
    return is_still_valid(principal, context.store.snapshot, context.clock())


def guards_of(principal: Principal) -> frozenset[str]:
    """The tables in which a change may make ``still_admitted`` say no."""
    return frozenset({"workers"}) if principal.worker_id is not None else _PEOPLE_TABLES


def credentials_of(request: ApiRequest) -> Credentials:
    """What in a request says who sends it."""
    return Credentials.read(request.header, request.header_names(), request.peer, request.method)


def lifetime(context: ApiContext) -> timedelta:
    """How long a login lasts from its last renewal."""
    return timedelta(minutes=context.access.rules.session_minutes)


def _rule_of(context: ApiContext) -> LocalAccessRule:
    rules = context.access.rules
    return LocalAccessRule(trusted=not rules.force_auth_localhost, admins=rules.local_admins)


def _authenticate(context: ApiContext, credentials: Credentials) -> Principal | PasswordCheck | OwnerCheck:
    return authenticate(
        credentials,
        context.store.snapshot,
        keys=context.keys,
        token=context.access.cluster_token,
        now=context.clock(),
        local_rule=_rule_of(context),
        trusted_origins=context.access.rules.trusted_origins,
    )


async def _by_password(
    context: ApiContext, request: ApiRequest, credentials: Credentials, check: PasswordCheck
) -> Principal:
    name = credentials.basic[0] if credentials.basic else ""
    try:
        with context.access.logins.passwords.attempt(request.peer, name) as attempt:
            hashed = check.user.hashed_password if check.user else None
            if not await verify_password(hashed, check.password):
                attempt.failed()
                raise Unauthorized
            attempt.succeeded()
        principal = principal_of_password(check)
    except (Unauthorized, TooManyRequests) as error:
        _record_failed_login(context, request, credentials, problem_of(error).status)
        raise
    except trio.Cancelled:
        _record_failed_login(context, request, credentials, audit_recorder.CLIENT_LEFT)
        raise
    # It may have been disabled, or given another password, while this one was verified.
    if not still_admitted(context, principal):
        raise Unauthorized
    return principal


def _record_failed_login(
    context: ApiContext, request: ApiRequest, credentials: Credentials, status: int
) -> None:
    """Tell the audit trail, whatever the request is for: reading and inference have no event of their own."""
    recorder = audit_recorder.start(context, request, "auth.login")
    audit_recorder.record_claimed_actor(recorder, context, credentials)
    recorder.ended(status)


def tell_of_unseen(context: ApiContext, head: RequestHead, peer: Peer) -> None:
    """Tell the audit trail of a password whose sender left before any route saw the request."""

    async def no_body() -> bytes:
        return b""

    request = ApiRequest(
        method=head.method,
        path=head.path,
        header=head.get,
        header_names=head.names,
        peer=peer.host,
        body=no_body,
    )
    credentials = credentials_of(request)
    if credentials.basic is not None or head.path == LOGIN_PATH:
        _record_failed_login(context, request, credentials, audit_recorder.CLIENT_LEFT)


def _has_public_model(snapshot: Snapshot) -> bool:
    return any(model.access is ModelAccess.PUBLIC for model in snapshot.models.values())


async def _renewed(context: ApiContext, credentials: Credentials) -> tuple[tuple[str, str], ...]:
    """Extend a login that ends soon. Where it cannot be written now, the request is served all the same."""
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
    text = cookie(credentials.cookie or "", secure=context.access.rules.tls, lifetime=lifetime(context))
    return (("Set-Cookie", text),)

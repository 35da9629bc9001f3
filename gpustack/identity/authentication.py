"""Who a request acts as, decided from its credentials and a snapshot alone. Pure."""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import Any

import attrs

from gpustack.domain.access import ApiKey, AuthMethod, KeyScope, Principal, Role, Session, User
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import Forbidden, Unauthorized

from .credentials import Credentials
from .derived_keys import DerivedKeys
from .keys import ApiKeyText, WorkerKeyText, is_token, parse
from .lookup import FieldIndex
from .sessions import find_session

JOIN_USER = "system/worker/"
"""The beginning of the user name with which a joining worker sends the cluster token as its password."""
LOCAL_USER = "system/local"
"""The name of a user of this machine who has no account; its user id follows. No account can have it."""

_BY_ACCESS_KEY = FieldIndex[ApiKey]("access_key")
_BY_NAME = FieldIndex[User]("username")


@attrs.frozen
class LocalAccessRule:
    """Whether a program on this machine needs credentials (``--force-auth-localhost``), and which users of this machine
    act as an administrator without them."""

    trusted: bool = True
    admins: frozenset[int] = frozenset()
    """User ids."""


@attrs.frozen
class PasswordCheck:
    """The request has a password: verify it (that is slow), then call ``principal_of_password``.

    ``user`` is ``None`` when no account of that name has a password: verify all the same, without a hash, so that the
    time does not tell.
    """

    user: User | None
    password: str = attrs.field(repr=False)


@attrs.frozen
class OwnerCheck:
    """A program on this machine shows no credentials: find out its user, then call ``local_principal``."""


def authenticate(
    request: Credentials,
    snapshot: Snapshot,
    *,
    keys: DerivedKeys,
    token: str,
    now: datetime,
    local_rule: LocalAccessRule = LocalAccessRule(),
    trusted_origins: frozenset[str] = frozenset(),
) -> Principal | PasswordCheck | OwnerCheck:
    """Try the credentials in turn: Basic, bearer, cookie, and being on this machine.

    Explicit credentials go before what a browser adds by itself. With an invalid key a program on this machine is
    refused, not admitted as if it had shown none; a placeholder that OpenAI's clients insist on does not count.
    Pages of ``trusted_origins`` (``--allow-credentials``) may act with their visitor's login, but not as a program on
    this machine.
    Raises ``Unauthorized`` when nothing is valid, ``Forbidden`` when a page of another site may be using a browser's
    login or its place on this machine.
    """
    if (basic := request.basic) is not None:
        name, password = basic
        if name.startswith(JOIN_USER):
            if is_token(password, token):
                return _joiner()
        else:
            return PasswordCheck(_password_user(snapshot, name), password)
    found = _by_bearer(request.bearer, snapshot, keys, token, now) or _by_cookie(request, snapshot, keys, now)
    if found is None:
        if not local_rule.trusted or not request.is_from_this_machine or not request.shows_nothing:
            raise Unauthorized
        # Not even reading is allowed then: CORS may let any page read the answers.
        _refuse_another_site(request)
        return OwnerCheck()
    trusted = request.origin is not None and request.origin.lower() in trusted_origins
    if found.means is AuthMethod.COOKIE and not request.is_safe and not trusted:
        _refuse_another_site(request)
    return found


def _refuse_another_site(request: Credentials) -> None:
    if request.may_be_another_site:
        raise Forbidden(
            "This request could come from a page of another site: send it as Content-Type: application/json, "
            "or with an API key"
        )


def principal_of_password(check: PasswordCheck) -> Principal:
    """The principal, after its password was verified. Raises ``Unauthorized`` when there is no such user."""
    if check.user is None:
        raise Unauthorized
    return _person(check.user, AuthMethod.BASIC, basis=check.user.hashed_password)


def local_principal(owner: int | None, snapshot: Snapshot, rule: LocalAccessRule) -> Principal:
    """The principal of a program on this machine without credentials, whose user is ``owner`` (``None``: unknown).

    For users in ``rule.admins``, who control the daemon anyway, it is the first administrator; for others a principal
    without an account. Raises ``Unauthorized`` when there is no administrator.
    """
    if owner is None or owner not in rule.admins:
        who = LOCAL_USER if owner is None else f"{LOCAL_USER}/{owner}"
        return Principal(
            role=Role.USER,
            means=AuthMethod.LOCAL,
            username=who,
            scopes=frozenset({KeyScope.INFERENCE, KeyScope.READ}),
        )
    admins = [user for user in snapshot.users.values() if user.is_admin and user.is_active]
    if not admins:
        raise Unauthorized
    return _person(min(admins, key=lambda user: user.id), AuthMethod.LOCAL)


def shows_credential(request: Credentials) -> bool:
    """Whether there is a password, or a key in one of our forms: then the client has to be told when it is invalid.

    Other bearers are placeholders that OpenAI's clients insist on, and browsers add cookies by themselves.
    """
    return request.basic is not None or (request.bearer is not None and parse(request.bearer) is not None)


def is_still_valid(principal: Principal, snapshot: Snapshot, now: datetime | None) -> bool:
    """Whether the principal of a request that goes on is still what it was: its account not disabled, its role, key and
    login unchanged. With ``now`` also whether the key or login has not expired.
    """
    if principal.worker_id is not None:
        worker = snapshot.get(Worker, principal.worker_id)
        return worker is not None and worker.credential_hash == principal.basis
    if principal.user_id is None:
        return True
    user = snapshot.get(User, principal.user_id)
    if user is None or not user.is_active or user.is_admin is not principal.is_admin:
        return False
    if principal.means is AuthMethod.BASIC and user.hashed_password != principal.basis:
        return False
    ends = None
    if principal.api_key_id is not None:
        key = snapshot.get(ApiKey, principal.api_key_id)
        if key is None or not key.is_enabled or _rights(key) != (principal.scopes, principal.allowed_models):
            return False
        ends = key.expires_at
    elif principal.session_id is not None:
        session = snapshot.get(Session, principal.session_id)
        if session is None:
            return False
        ends = session.expires_at
    return now is None or ends is None or now < ends


def _by_cookie(
    request: Credentials, snapshot: Snapshot, keys: DerivedKeys, now: datetime
) -> Principal | None:
    session = find_session(snapshot, request.cookie, keys=keys, now=now)
    user = None if session is None else snapshot.get(User, session.user_id)
    if session is None or user is None or not user.is_active:
        return None
    return _person(user, AuthMethod.COOKIE, session_id=session.id)


def _by_bearer(
    bearer: str | None, snapshot: Snapshot, keys: DerivedKeys, token: str, now: datetime
) -> Principal | None:
    if bearer is None:
        return None
    match parse(bearer):
        case ApiKeyText() as text:
            found = _by_api_key(text, snapshot, keys, now)
        case WorkerKeyText() as text:
            found = _by_worker_key(text, snapshot, keys)
        case None:
            found = None
    # A chosen token may look like anything, also like an API key.
    return found if found is not None else (_joiner() if is_token(bearer, token) else None)


def _by_api_key(text: ApiKeyText, snapshot: Snapshot, keys: DerivedKeys, now: datetime) -> Principal | None:
    hashed = keys.api_hash(text.secret)
    key = _BY_ACCESS_KEY.find(snapshot.api_keys, text.access)
    if key is None or not hmac.compare_digest(hashed.encode(), key.secret_hash.encode()):
        return None
    user = snapshot.get(User, key.user_id)
    if not key.is_enabled or (key.expires_at is not None and key.expires_at <= now):
        return None
    if user is None or not user.is_active:
        return None
    scopes, allowed_models = _rights(key)
    return _person(user, AuthMethod.KEY, api_key_id=key.id, scopes=scopes, allowed_models=allowed_models)


def _rights(key: ApiKey) -> tuple[frozenset[KeyScope] | None, frozenset[str] | None]:
    return (
        None if key.scopes is None else frozenset(key.scopes),
        None if key.allowed_models is None else frozenset(key.allowed_models),
    )


def _by_worker_key(text: WorkerKeyText, snapshot: Snapshot, keys: DerivedKeys) -> Principal | None:
    hashed = keys.worker_hash(text.secret)
    worker = snapshot.get(Worker, text.worker_id)
    if worker is None or worker.barred:
        return None
    # The former credential is valid until the new one has been used.
    good = (worker.credential_hash, worker.former_credential_hash)
    if not any([one and hmac.compare_digest(hashed.encode(), one.encode()) for one in good]):
        return None
    return Principal(
        role=Role.WORKER,
        means=AuthMethod.WORKER,
        worker_id=worker.id,
        username=worker.name,
        basis=worker.credential_hash,
    )


def _password_user(snapshot: Snapshot, name: str) -> User | None:
    user = _BY_NAME.find(snapshot.users, name)
    return user if user is not None and user.is_active and user.hashed_password else None


def _person(user: User, means: AuthMethod, **more: Any) -> Principal:
    return Principal(
        role=Role.ADMIN if user.is_admin else Role.USER,
        means=means,
        user_id=user.id,
        username=user.username,
        must_change_password=user.require_password_change,
        **more,
    )


def _joiner() -> Principal:
    return Principal(role=Role.JOINER, means=AuthMethod.TOKEN)

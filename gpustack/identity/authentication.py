"""Who a request acts as, decided from its credentials and a snapshot alone."""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import Any

import attrs

from gpustack.domain.access import ApiKey, AuthMethod, KeyScope, Principal, Role, Session, User
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import Forbidden, Unauthorized

from .cluster_token import is_token
from .credentials import Credentials
from .derived_keys import DerivedKeys
from .keys import ApiKeyText, WorkerKeyText, parse
from .lookup import FieldIndex
from .sessions import find_session

__all__ = [
    "Credentials",
    "LocalAccessRule",
    "OwnerCheck",
    "PasswordCheck",
    "authenticate",
    "holds",
    "local",
    "proven",
    "shows_something",
]

JOIN_USER = "system/worker/"
"""What the user name of a joining worker begins with, where it sends the token as a password."""
LOCAL_USER = "system/local"
"""What a user of this machine without an account is called, with the number that the kernel has; no account is."""

_BY_ACCESS_KEY = FieldIndex[ApiKey]("access_key")
_BY_NAME = FieldIndex[User]("username")


@attrs.frozen
class LocalAccessRule:
    """Whether a program on this machine needs no credentials (``--force-auth-localhost`` forbids it), and of which
    users it is an administrator's then.
    """

    trusted: bool = True
    admins: frozenset[int] = frozenset()
    """By the numbers that the kernel has for them."""


@attrs.frozen
class PasswordCheck:
    """The request stands or falls with a password: verify it (that is slow), then ask ``proven``.

    ``user`` is ``None`` when nobody by that name can log in with a password: verify all the same, against no
    hash, so that the time tells nothing.
    """

    user: User | None
    password: str = attrs.field(repr=False)


@attrs.frozen
class OwnerCheck:
    """A program on this machine asks without a key: ask the kernel for its user, then ask ``local``."""


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
    """Look at the credentials in turn: Basic, bearer, cookie, and being on this machine.

    What somebody says explicitly goes before what a browser adds, and a bad cookie hides nothing. Whoever
    shows a key that is no good is told so, and not taken for somebody on this machine who shows none; a stand-in
    such as OpenAI clients insist on does not matter there.
    Pages of ``trusted_origins`` (``--allow-credentials``) may act with the login of who visits them, not with
    somebody's place on this machine.
    Raises ``Unauthorized`` when nothing convinces, ``Forbidden`` when a page of another site may be making use
    of a browser's login or of its place on this machine.
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
        # Of this authority not even what is read may get to another site: CORS may be open to all.
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


def proven(needed: PasswordCheck) -> Principal:
    """The principal once the password was verified; raises ``Unauthorized`` when there is no such user."""
    if needed.user is None:
        raise Unauthorized
    return _person(needed.user, AuthMethod.BASIC, basis=needed.user.hashed_password)


def local(owner: int | None, snapshot: Snapshot, rule: LocalAccessRule) -> Principal:
    """Who a program on this machine is that shows nothing: the first administrator where its user is one of those who
    rule the daemon anyway, and somebody without an account where it is another, or cannot be told.

    Raises ``Unauthorized`` when there is no administrator to be.
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


def shows_something(request: Credentials) -> bool:
    """Whether there is a password, or a key that looks like ours: who shows one wants to be told when it is no good.

    Other bearers are stand-ins such as OpenAI's clients insist on, and cookies are added by browsers.
    """
    return request.basic is not None or (request.bearer is not None and parse(request.bearer) is not None)


def holds(principal: Principal, snapshot: Snapshot, now: datetime | None) -> bool:
    """Whether the principal of a request that goes on still is what it was: nobody disabled it, took its role, changed
    its key or ended its login. With ``now`` also whether its time is not over.
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
    # A token that somebody chose may look like anything, a key of ours included.
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
    good = (
        worker.credential_hash,
        worker.former_credential_hash,
    )  # the latter until the former has been used
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

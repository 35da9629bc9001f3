"""Accounts, API keys, sessions and sign-ins, and the principal that a request acts as."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import attrs

from .record import Record, stored


class UserSource(StrEnum):
    """Which party verifies the identity of an account."""

    LOCAL = "Local"
    OIDC = "OIDC"
    SAML = "SAML"


class KeyScope(StrEnum):
    """What a key may be used for. ``management`` includes ``read``."""

    INFERENCE = "inference"
    MANAGEMENT = "management"
    READ = "read"


@attrs.frozen(kw_only=True)
class Limits:
    """How much may be used: by a key, by a user with all keys, or of a model by everybody. ``None``: no limit.

    Days and months are those of UTC.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None


@stored("users", unique=(("username",),))
@attrs.frozen(kw_only=True)
class User(Record):
    """An account. ``hashed_password`` is argon2id, empty where an identity provider verifies the identity."""

    username: str
    is_admin: bool = False
    is_active: bool = True
    full_name: str | None = None
    avatar_url: str | None = None
    source: UserSource = UserSource.LOCAL
    require_password_change: bool = False
    hashed_password: str = attrs.field(default="", repr=False)
    limits: Limits | None = None


@stored("external_identities", unique=(("issuer", "subject"),), indexed=("user_id",))
@attrs.frozen(kw_only=True)
class ExternalIdentity(Record):
    """The subject of an account at an identity provider. The account is found by this pair alone, never by a name."""

    user_id: int
    issuer: str
    subject: str


@stored("api_keys", unique=(("access_key",), ("user_id", "name")))
@attrs.frozen(kw_only=True)
class ApiKey(Record):
    """``gpustack_<access_key>_<secret>``; of the secret only its HMAC is kept.

    ``scopes`` and ``allowed_models`` (by name) are ``None`` where all are allowed.
    """

    name: str
    user_id: int
    access_key: str
    secret_hash: str = attrs.field(repr=False)
    description: str | None = None
    expires_at: datetime | None = None
    is_enabled: bool = True
    scopes: tuple[KeyScope, ...] | None = None
    allowed_models: tuple[str, ...] | None = None
    limits: Limits | None = None
    last_used_at: datetime | None = None
    """Accurate to about a minute."""


@stored("sessions", unique=(("token_hash",),))
@attrs.frozen(kw_only=True)
class Session(Record):
    """A login. The cookie holds a random id, this record the hash of it."""

    user_id: int
    token_hash: str = attrs.field(repr=False)
    expires_at: datetime
    source: UserSource = UserSource.LOCAL
    """Which party verified the identity at this login."""
    logout_hint: str | None = attrs.field(default=None, repr=False)
    """What that party must be sent so that its own session ends at logout too."""


@stored("sign_ins", unique=(("state_hash",),))
@attrs.frozen(kw_only=True)
class SignIn(Record):
    """A login in progress at an identity provider, found by the state that the provider sends back. Valid once and for
    a short time."""

    source: UserSource
    state_hash: str = attrs.field(repr=False)
    browser_hash: str = attrs.field(repr=False)
    """Hash of a cookie of the browser that began the login: a link that somebody else began logs nobody in."""
    secret: str = attrs.field(repr=False)
    """What the answer must match: the id of the request (SAML) or the nonce (OIDC)."""
    next_path: str = "/"
    expires_at: datetime


@stored("used_assertions", unique=(("assertion_hash",),))
@attrs.frozen(kw_only=True)
class UsedAssertion(Record):
    """A SAML assertion that was used for a login, kept until it expires so that it is not accepted again."""

    assertion_hash: str
    expires_at: datetime


class Role(StrEnum):
    """What a principal may do."""

    ADMIN = "admin"
    USER = "user"
    WORKER = "worker"
    JOINER = "joiner"
    """Holds the cluster token: may join a worker, nothing else."""
    ANYBODY = "anybody"
    """Sent no credentials: may use public models, nothing else."""


class AuthMethod(StrEnum):
    """How a request was authenticated. With ``COOKIE`` or ``LOCAL``, unsafe methods need an ``Origin`` of this
    server."""

    COOKIE = "cookie"
    BASIC = "basic"
    KEY = "key"
    LOCAL = "local"
    TOKEN = "token"
    WORKER = "worker"
    NOTHING = "nothing"


@attrs.frozen(kw_only=True)
class Principal:
    """Who a request acts as. ``user_id`` is set for people, ``worker_id`` for workers."""

    role: Role
    means: AuthMethod
    user_id: int | None = None
    username: str = ""
    api_key_id: int | None = None
    session_id: int | None = None
    worker_id: int | None = None
    must_change_password: bool = False
    scopes: frozenset[KeyScope] | None = None
    """What its key may be used for; ``None``: whatever its owner may."""
    allowed_models: frozenset[str] | None = None
    """The models, by name, that its key may use; ``None``: whatever its owner may."""
    basis: str = attrs.field(default="", repr=False)
    """The stored hash that the password or worker credential was verified with. Once the record holds another one, this
    principal is no longer valid."""

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

    def has_scope(self, *any_of: KeyScope) -> bool:
        """Whether its key may be used for one of these; without a key, or with one for everything, it may."""
        return self.scopes is None or not self.scopes.isdisjoint(any_of)


NOBODY = Principal(role=Role.ANYBODY, means=AuthMethod.NOTHING)
"""The principal of a request without credentials."""

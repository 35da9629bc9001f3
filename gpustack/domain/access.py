"""Who may come in: users, their keys and sessions, and the principal a request turns out to be."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import attrs

from .record import Record, stored


class UserSource(StrEnum):
    """Where the account's identity is proved."""

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
    """An account. ``hashed_password`` is argon2id, empty where another party proves the identity."""

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
    """Who another party says somebody is. The account goes by this pair alone, never by a name."""

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
    """To the minute or so."""


@stored("sessions", unique=(("token_hash",),))
@attrs.frozen(kw_only=True)
class Session(Record):
    """A login. The cookie holds the random id; here stands its hash."""

    user_id: int
    token_hash: str = attrs.field(repr=False)
    expires_at: datetime
    source: UserSource = UserSource.LOCAL
    """Who proved the identity at this login."""
    logout_hint: str | None = attrs.field(default=None, repr=False)
    """What that party wants to be shown when the login ends there too."""


@stored("sign_ins", unique=(("state_hash",),))
@attrs.frozen(kw_only=True)
class SignIn(Record):
    """A login under way at another party, found by what that party sends back; good once, and not for long."""

    source: UserSource
    state_hash: str = attrs.field(repr=False)
    browser_hash: str = attrs.field(repr=False)
    """Of a cookie of the browser that began: nobody is logged in by a link that somebody else began."""
    secret: str = attrs.field(repr=False)
    """What the answer must agree with: the id of the request, the nonce."""
    next_path: str = "/"
    expires_at: datetime


@stored("used_assertions", unique=(("assertion_hash",),))
@attrs.frozen(kw_only=True)
class UsedAssertion(Record):
    """An assertion that logged somebody in, kept until it ends by itself: nobody logs in with it again."""

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
    """Shows nothing: may use public models, nothing else."""


class AuthMethod(StrEnum):
    """How a request proved who sends it; unsafe methods by cookie or locality need a same-origin Origin."""

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
    """The hash that a password or a worker's credential agreed with: with another one the proof is void."""

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

    def has_scope(self, *any_of: KeyScope) -> bool:
        """Whether its key may be used for one of these; without a key, or with one for everything, it may."""
        return self.scopes is None or not self.scopes.isdisjoint(any_of)


NOBODY = Principal(role=Role.ANYBODY, means=AuthMethod.NOTHING)
"""Whoever asks without saying who it is."""

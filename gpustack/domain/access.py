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


@stored("api_keys", unique=(("access_key",), ("user_id", "name")))
@attrs.frozen(kw_only=True)
class ApiKey(Record):
    """``gpustack_<access_key>_<secret>``; of the secret only its HMAC is kept."""

    name: str
    user_id: int
    access_key: str
    secret_hash: str = attrs.field(repr=False)
    description: str | None = None
    expires_at: datetime | None = None


@stored("sessions", unique=(("token_hash",),))
@attrs.frozen(kw_only=True)
class Session(Record):
    """A login. The cookie holds the random id; here stands its hash."""

    user_id: int
    token_hash: str = attrs.field(repr=False)
    expires_at: datetime


class Role(StrEnum):
    """What a principal may do."""

    ADMIN = "admin"
    USER = "user"
    WORKER = "worker"
    JOINER = "joiner"
    """Holds the cluster token: may join a worker, nothing else."""


class Means(StrEnum):
    """How a request proved who sends it; unsafe methods by cookie or locality need a same-origin Origin."""

    COOKIE = "cookie"
    BASIC = "basic"
    KEY = "key"
    LOCAL = "local"
    TOKEN = "token"
    WORKER = "worker"


@attrs.frozen(kw_only=True)
class Principal:
    """Who a request acts as. ``user_id`` is set for people, ``worker_id`` for workers."""

    role: Role
    means: Means
    user_id: int | None = None
    username: str = ""
    api_key_id: int | None = None
    worker_id: int | None = None
    must_change_password: bool = False

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

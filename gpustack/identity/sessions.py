"""The login that a browser keeps: a random token in a cookie, of which only the hash is stored."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from gpustack.domain.access import Session
from gpustack.domain.snapshot import Snapshot

from .derived_keys import DerivedKeys
from .lookup import FieldIndex

COOKIE = "gpustack_session"
LIFETIME = timedelta(minutes=120)
RENEW_WITHIN = timedelta(minutes=15)

_BY_HASH = FieldIndex[Session]("token_hash")
_LONGEST = 256


def make_session(
    user_id: int, *, keys: DerivedKeys, now: datetime, rng: random.Random, lifetime: timedelta = LIFETIME
) -> tuple[str, Session]:
    """A new login: the token for the cookie, and the record to store."""
    token = f"{rng.getrandbits(256):064x}"
    return token, Session(user_id=user_id, token_hash=keys.session_hash(token), expires_at=now + lifetime)


def find_session(
    snapshot: Snapshot, token: str | None, *, keys: DerivedKeys, now: datetime
) -> Session | None:
    """The login of a cookie; ``None`` when it is unknown or has expired."""
    if not token or len(token) > _LONGEST:
        return None
    session = _BY_HASH.find(snapshot.sessions, keys.session_hash(token))
    return session if session is not None and now < session.expires_at else None


def is_due(session: Session, now: datetime) -> bool:
    """Whether it ends so soon that a request should renew it."""
    return session.expires_at - now < RENEW_WITHIN


def cookie(token: str, *, secure: bool, lifetime: timedelta = LIFETIME) -> str:
    """The ``Set-Cookie`` value that sets the cookie. ``secure``: only over TLS."""
    return _cookie(token, int(lifetime.total_seconds()), secure)


def no_cookie(*, secure: bool) -> str:
    """The ``Set-Cookie`` value that removes the cookie."""
    return _cookie("", 0, secure)


def token_in(header: str | None) -> str | None:
    """The session token in a ``Cookie`` header."""
    for part in (header or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE and value:
            return value.strip('"')
    return None


def _cookie(value: str, seconds: int, secure: bool) -> str:
    ending = "; Secure" if secure else ""
    return f"{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{ending}"

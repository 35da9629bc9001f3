"""A login under way at the identity provider: its state, its cookie, its record."""

from __future__ import annotations

import hmac
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import attrs

from gpustack.domain.access import SignIn, UserSource
from gpustack.domain.snapshot import Snapshot

from .derived_keys import DerivedKeys
from .lookup import FieldIndex

WITHIN = timedelta(minutes=10)
"""The time that a person may take at the provider."""

COOKIE = "gpustack_sign_in_"
_BY_STATE = FieldIndex[SignIn]("state_hash")
_LONGEST = 128
_LONGEST_PATH = 2048


@attrs.frozen
class SignInRequest:
    """A request to the identity provider."""

    secret: str = attrs.field(repr=False)
    """What the answer must agree with. It is stored with the login under way."""
    url: Callable[[str], Awaitable[str]]
    """Where the browser goes, given the state."""


@attrs.frozen(kw_only=True)
class SignInStart:
    """A login that starts: ``state`` goes to the provider, ``cookie`` (a ``Set-Cookie`` value) to the browser."""

    state: str = attrs.field(repr=False)
    cookie: str = attrs.field(repr=False)
    record: SignIn


def begin(
    source: UserSource,
    *,
    secret: str,
    next_path: str | None,
    keys: DerivedKeys,
    now: datetime,
    rng: random.Random,
    secure: bool,
) -> SignInStart:
    """A new login under way. ``next_path`` is the page to come back to, if it is one of this server.

    Each has a cookie of its own, so that two tabs do not disturb each other.
    """
    state, browser = new_state(rng), new_state(rng)
    record = SignIn(
        source=source,
        state_hash=keys.sign_in_hash(state),
        browser_hash=keys.sign_in_hash(browser),
        secret=secret,
        next_path=path_within(next_path),
        expires_at=now + WITHIN,
    )
    return SignInStart(
        state=state, cookie=_cookie(record, browser, int(WITHIN.total_seconds()), secure), record=record
    )


def find(
    snapshot: Snapshot, source: UserSource, state: str | None, *, keys: DerivedKeys, now: datetime
) -> SignIn | None:
    """The login under way that has this state; ``None`` when there is none, or it took too long."""
    if not state or len(state) > _LONGEST:
        return None
    found = _BY_STATE.find(snapshot.all(SignIn), keys.sign_in_hash(state))
    return found if found is not None and found.source is source and now < found.expires_at else None


def is_of_browser(record: SignIn, cookies: str | None, *, keys: DerivedKeys) -> bool:
    """Whether the browser with this ``Cookie`` header started the login: no other may finish it."""
    for part in (cookies or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == _name(record) and len(value) <= _LONGEST:
            return hmac.compare_digest(keys.sign_in_hash(value).encode(), record.browser_hash.encode())
    return False


def no_cookie(record: SignIn, *, secure: bool) -> str:
    """The ``Set-Cookie`` value that removes the login's cookie."""
    return _cookie(record, "", 0, secure)


def new_state(rng: random.Random) -> str:
    """256 random bits in hex."""
    return f"{rng.getrandbits(256):064x}"


def path_within(wanted: str | None) -> str:
    """``wanted`` if it is a path of this server that is no sign-in itself, else the start page.

    Browsers read ``//host``, ``/\\host`` and paths with control characters in them as other hosts.
    """
    text = wanted or "/"
    good = (
        text.startswith("/")
        and not text.startswith("//")
        and "\\" not in text
        and text.isascii()
        and text.isprintable()
        and " " not in text
        and len(text) <= _LONGEST_PATH
        and not text.startswith("/auth/")
    )
    return text if good else "/"


def _name(record: SignIn) -> str:
    return COOKIE + record.browser_hash[:16]


def _cookie(record: SignIn, value: str, seconds: int, secure: bool) -> str:
    # Lax: the provider sends the browser back from its own site, by a link or a redirect.
    ending = "; Secure" if secure else ""
    return f"{_name(record)}={value}; Path=/auth/; Max-Age={seconds}; HttpOnly; SameSite=Lax{ending}"

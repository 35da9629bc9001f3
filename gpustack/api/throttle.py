"""Limits of logins: failed passwords by address and name, and started sign-ins by address."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address

import attrs

from gpustack.errors import TooManyRequests

_WINDOW = 300.0
_PER_NAME = 5
"""Failed passwords for one name from one address within ``_WINDOW`` seconds."""
_PER_ADDRESS = 50
"""The same for one address, whatever the names: above it, somebody is trying names."""
_AT_ONCE = 16
"""Passwords of one name and address that are being verified: tries that no failure has counted yet."""
_AT_ONCE_FROM_ONE = 64
"""The same for one address, whatever the names. Verifying so many takes a second or so."""
_REMEMBERED = 20_000
"""Keys that are kept. One more replaces the one that was longest unused, so that nobody fills the memory."""
_LONGEST_NAME = 256
"""Characters of a name that are part of its key: a client chooses them, and they are kept."""

_MINUTE = 60.0
_PER_MINUTE = 120
"""Sign-ins started from one address; behind a proxy that is everybody."""

_Key = tuple[str, str]
"""Network and name; an empty name counts all names."""


@attrs.define
class LoginAttempt:
    """One password that is being verified. Without a result (the client went away) it counts as nothing."""

    _throttle: LoginThrottle
    _key: _Key

    def failed(self) -> None:
        self._throttle._count(self._key)

    def succeeded(self) -> None:
        """Forget the failures of this name from this address."""
        self._throttle._forgive(self._key)


@attrs.define(eq=False, repr=False)
class LoginThrottle:
    """Owns the counts of failed passwords: in memory, each for five minutes. ``clock`` is monotonic, in seconds."""

    _clock: Callable[[], float]
    _failures: OrderedDict[_Key, list[float]] = attrs.field(factory=OrderedDict)
    _open: Counter[_Key] = attrs.field(factory=Counter)
    _open_from: Counter[str] = attrs.field(factory=Counter)

    @contextmanager
    def attempt(self, address: str, name: str) -> Iterator[LoginAttempt]:
        """Wraps the verification of a password. Raises ``TooManyRequests`` on entry when a limit is reached."""
        place = network_of(address)
        key = (place, name[:_LONGEST_NAME])
        self._check(key, address)
        self._open[key] += 1
        self._open_from[place] += 1
        try:
            yield LoginAttempt(self, key)
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
            self._open_from[place] -= 1
            if not self._open_from[place]:
                del self._open_from[place]

    def _check(self, key: _Key, address: str) -> None:
        for one, limit in ((key, _PER_NAME), ((key[0], ""), _PER_ADDRESS)):
            recent = self._recent(one)
            if len(recent) >= limit:
                wait = max(1.0, recent[-limit] + _WINDOW - self._clock())
                message = f"Too many failed logins from {address}; try again in {wait:.0f} s"
                raise TooManyRequests(message, retry_after=wait)
        if self._open[key] >= _AT_ONCE or self._open_from[key[0]] >= _AT_ONCE_FROM_ONE:
            raise TooManyRequests(f"Too many logins at once from {address}", retry_after=1.0)

    def _count(self, key: _Key) -> None:
        now = self._clock()
        for one in (key, (key[0], "")):
            self._failures[one] = [*self._recent(one), now][-_PER_ADDRESS:]
            self._failures.move_to_end(one)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def _forgive(self, key: _Key) -> None:
        self._failures.pop(key, None)

    def _recent(self, key: _Key) -> list[float]:
        since = self._clock() - _WINDOW
        return [at for at in self._failures.get(key, ()) if at > since]

    def __repr__(self) -> str:
        return (
            f"<LoginThrottle: {len(self._failures)} with failed logins, {self._open.total()} being verified>"
        )


@attrs.define(eq=False, repr=False)
class AddressRateLimiter:
    """Owns the counts by address of something that anybody may do, for a window of a minute that begins with the
    first. ``clock`` is monotonic, in seconds."""

    _clock: Callable[[], float]
    _most: int = _PER_MINUTE
    _counts: OrderedDict[str, tuple[float, int]] = attrs.field(factory=OrderedDict)

    def step(self, address: str) -> None:
        """Count one. Raises ``TooManyRequests`` when the window has ``most`` already."""
        now, place = self._clock(), network_of(address)
        since, count = self._counts.get(place, (now, 0))
        if now - since >= _MINUTE:
            since, count = now, 0
        if count >= self._most:
            wait = max(1.0, since + _MINUTE - now)
            raise TooManyRequests(
                f"Too many logins begin from {address}; try again in {wait:.0f} s", retry_after=wait
            )
        self._counts[place] = (since, count + 1)
        self._counts.move_to_end(place)
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def __repr__(self) -> str:
        return f"<AddressRateLimiter: {len(self._counts)} addresses have begun logins>"


@attrs.frozen
class LoginLimiters:
    """The limiters of everything by which people log in."""

    passwords: LoginThrottle
    starts: AddressRateLimiter
    """Of sign-ins at the identity provider: each is stored until it ends."""
    answers: AddressRateLimiter
    """Of answers of the identity provider that are checked."""

    @classmethod
    def of(cls, clock: Callable[[], float]) -> LoginLimiters:
        """``clock`` is monotonic."""
        return cls(LoginThrottle(clock), AddressRateLimiter(clock), AddressRateLimiter(clock))


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the first 64 bits, since a client may have all of the rest."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return ":".join(parsed.exploded.split(":")[:4])
    return address

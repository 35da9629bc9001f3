"""Failed logins are counted by address and name, and too many of them are refused for a while."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address

import attrs

from gpustack.errors import TooManyRequests

_WINDOW = 300.0
_PER_NAME = 5
"""Failures of one name from one address within the window."""
_PER_ADDRESS = 50
"""Failures from one address, whatever the names: above it, somebody is trying names."""
_AT_ONCE = 16
"""Passwords of one name and address being verified: what may be tried before the first failure is known."""
_AT_ONCE_FROM_ONE = 64
"""Passwords from one address being verified, whatever the names: who waits behind them waits a second or so."""
_REMEMBERED = 20_000
"""Keys kept; beyond, the longest untouched is forgotten, so that an attacker cannot fill the memory."""
_LONGEST = 256
"""Characters of a name that are looked at: names come from outside and are kept."""

_Key = tuple[str, str]


@attrs.define
class LoginAttempt:
    """One password being verified. Left undecided (the caller went away) it counts as nothing."""

    _throttle: LoginThrottle
    _key: _Key

    def failed(self) -> None:
        self._throttle._count(self._key)

    def succeeded(self) -> None:
        """This name's earlier slips from there are forgiven."""
        self._throttle._forgive(self._key)


@attrs.define(eq=False, repr=False)
class LoginThrottle:
    """Owns the counts of failed logins. It forgets them with the process, and each after five minutes."""

    _clock: Callable[[], float]
    _failures: OrderedDict[_Key, list[float]] = attrs.field(factory=OrderedDict)
    _open: Counter[_Key] = attrs.field(factory=Counter)
    _open_from: Counter[str] = attrs.field(factory=Counter)

    @contextmanager
    def attempt(self, address: str, name: str) -> Iterator[LoginAttempt]:
        """Around the verification of a password. Raises ``TooManyRequests`` before it if a limit is reached."""
        place = network_of(address)
        key = (place, name[:_LONGEST])
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
        return f"<Throttle: {len(self._failures)} with failed logins, {self._open.total()} being verified>"


def network_of(address: str) -> str:
    """What one caller can vary at will counts as one: of IPv6 the first 64 bits."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return ":".join(parsed.exploded.split(":")[:4])
    return address

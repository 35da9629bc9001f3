"""How often one address may begin a login at another party: each is kept for a while, and anybody may begin."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import attrs

from gpustack.errors import TooManyRequests

from .throttle import network_of

_WINDOW = 60.0
_MOST = 120
"""From one address within the window; behind one proxy that is everybody."""
_REMEMBERED = 20_000


@attrs.define(eq=False, repr=False)
class AddressRateLimiter:
    """Owns the counts of the present window by address."""

    _clock: Callable[[], float]
    _most: int = _MOST
    _counts: OrderedDict[str, tuple[float, int]] = attrs.field(factory=OrderedDict)

    def step(self, address: str) -> None:
        """Count one. Raises ``TooManyRequests`` where there were too many."""
        now, place = self._clock(), network_of(address)
        since, count = self._counts.get(place, (now, 0))
        if now - since >= _WINDOW:
            since, count = now, 0
        if count >= self._most:
            wait = max(1.0, since + _WINDOW - now)
            raise TooManyRequests(
                f"Too many logins begin from {address}; try again in {wait:.0f} s", retry_after=wait
            )
        self._counts[place] = (since, count + 1)
        self._counts.move_to_end(place)
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def __repr__(self) -> str:
        return f"<Pace: {len(self._counts)} addresses have begun logins>"

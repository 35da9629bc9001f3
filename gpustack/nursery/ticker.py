"""Regular ticks that do not drift, and do not come in bursts after a delay."""

from __future__ import annotations

import math

import attrs
import trio


def ticks(period: float) -> Ticks:
    """For ``async for``: yields the number of each tick, 0 at once, then n at ``n * period`` seconds after it.

    Ticks whose time passed while the loop was busy are left out, so numbers may jump.
    """
    return Ticks(period)


@attrs.define(eq=False)
class Ticks:
    """An iterator and not a generator, so that a loop can leave it without closing it."""

    _period: float
    _begun: float | None = attrs.field(default=None, init=False)
    _number: int = attrs.field(default=0, init=False)

    def __aiter__(self) -> Ticks:
        return self

    async def __anext__(self) -> int:
        if self._begun is None:
            await trio.lowlevel.checkpoint()
            self._begun = trio.current_time()
            return 0
        passed = trio.current_time() - self._begun
        self._number = max(self._number + 1, math.ceil(passed / self._period))
        await trio.sleep(max(0.0, self._number * self._period - passed))
        return self._number

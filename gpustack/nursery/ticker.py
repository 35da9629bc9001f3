"""Regular ticks that do not drift, and do not come in bursts after a delay."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import attrs
import trio


def ticks(
    period: float,
    *,
    jitter: float = 0.0,
    rng: random.Random | None = None,
    clock: Callable[[], float] = trio.current_time,
) -> Ticks:
    """For ``async for``: yields the number of each tick, 0 at once, then n at ``n * period`` seconds after it.

    Ticks whose time passed while the loop was busy are left out, so numbers may jump. ``jitter`` delays each tick but
    the first by a random time of up to that many seconds, without a delay of those after it.
    """
    if not 0 <= jitter < period:
        raise ValueError("jitter must be shorter than the period")
    if jitter and rng is None:
        raise ValueError("jitter needs an rng")
    return Ticks(period, jitter, rng, clock)


@attrs.define(eq=False)
class Ticks:
    """An iterator and not a generator, so that a loop can leave it without closing it."""

    _period: float
    _jitter: float
    _rng: random.Random | None
    _clock: Callable[[], float]
    _begun: float | None = attrs.field(default=None, init=False)
    _number: int = attrs.field(default=0, init=False)

    def __aiter__(self) -> Ticks:
        return self

    async def __anext__(self) -> int:
        if self._begun is None:
            await trio.lowlevel.checkpoint()
            self._begun = self._clock()
            return 0
        passed = self._clock() - self._begun
        self._number = max(self._number + 1, math.ceil(passed / self._period))
        due = self._number * self._period
        if self._rng is not None:
            due += self._rng.uniform(0.0, self._jitter)
        await trio.sleep(max(0.0, due - passed))
        return self._number

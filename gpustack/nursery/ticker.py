"""Regular ticks that neither drift nor come in bursts after a stall."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable

import trio


async def ticks(
    period: float,
    *,
    jitter: float = 0.0,
    rng: random.Random | None = None,
    clock: Callable[[], float] = trio.current_time,
) -> AsyncIterator[int]:
    """Yield the number of each tick: 0 at once, then n at ``n * period`` seconds after it.

    Ticks whose time passed while the loop was busy are left out, so numbers may jump. ``jitter`` delays
    each tick but the first by up to that many seconds of ``rng``'s choosing, without moving those after it.
    """
    if not 0 <= jitter < period:
        raise ValueError("jitter must be shorter than the period")
    if jitter and rng is None:
        raise ValueError("jitter needs an rng")
    begun = clock()
    number = 0
    await trio.lowlevel.checkpoint()
    while True:
        yield number
        number = max(number + 1, math.ceil((clock() - begun) / period))
        due = begun + number * period + (rng.uniform(0.0, jitter) if rng is not None else 0.0)
        await trio.sleep(max(0.0, due - clock()))

"""Computes when something that failed is tried again, from the times of its failures."""

from __future__ import annotations

import math
import random

import attrs

_REMEMBERED = 100


@attrs.frozen(kw_only=True)
class RestartPolicy:
    """Delays that grow by ``factor`` from ``first`` to ``ceiling`` seconds with each failure in a row.

    Only failures within the last ``window`` seconds count; with more than ``budget`` of them it gives up. After a run
    of at least ``stable_after`` seconds the next failure counts as the first. ``jitter`` is the largest part of a delay
    that is taken off at random, for callers that pass an ``rng``.
    """

    first: float = 1.0
    factor: float = 2.0
    ceiling: float = 60.0
    budget: int | None = 5
    window: float = 300.0
    stable_after: float | None = None
    jitter: float = 0.1

    def delay(
        self, failures: tuple[float, ...], now: float, *, rng: random.Random | None = None
    ) -> float | None:
        """Seconds to wait after the last of ``failures`` (in order, newest last), or None: give up."""
        recent = self.recent(failures, now)
        if self.budget is not None and len(recent) > self.budget:
            return None
        pause = self.pause(self.streak(recent))
        return pause if rng is None else pause * (1.0 - self.jitter * rng.random())

    def recent(self, failures: tuple[float, ...], now: float) -> tuple[float, ...]:
        """The failures that still count; the caller need not keep others."""
        keep = _REMEMBERED if self.budget is None else max(_REMEMBERED, self.budget + 1)
        return tuple(t for t in failures[-keep:] if now - t <= self.window)

    def streak(self, failures: tuple[float, ...]) -> int:
        """How many of the newest failures came in a row, without a stable run in between."""
        count, before = 0, -math.inf
        for at in failures:
            # The time between two failures is the pause after the first one plus the run that followed.
            lived = at - before - (self.pause(count) if count else 0.0)
            if self.stable_after is not None and lived >= self.stable_after:
                count = 0
            count, before = count + 1, at
        return count

    def pause(self, streak: int) -> float:
        """Seconds to wait after the ``streak``-th failure in a row, before jitter."""
        pause = self.first
        for _ in range(streak - 1):
            if pause >= self.ceiling:
                break
            pause *= self.factor
        return min(pause, self.ceiling)


NEVER = RestartPolicy(budget=0)

"""Waiting for the first of several things."""

from __future__ import annotations

import trio

from gpustack.worker.race import first_of


async def test_the_first_wins_and_the_others_are_gone(autojump_clock: trio.abc.Clock) -> None:
    cancelled = []

    async def wait(seconds: float) -> None:
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            cancelled.append(seconds)
            raise

    assert await first_of(lambda: wait(3), lambda: wait(1), lambda: wait(2)) == 1
    assert sorted(cancelled) == [2, 3]

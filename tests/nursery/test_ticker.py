"""Ticks neither drift nor burst."""

from __future__ import annotations

import random

import pytest
import trio

from gpustack.nursery import ticks


async def _times(count: int, work: dict[int, float], jitter: float = 0.0) -> list[tuple[int, float]]:
    begun, got = trio.current_time(), []
    async for number in ticks(10, rng=random.Random(5), jitter=jitter):
        got.append((number, trio.current_time() - begun))
        if len(got) == count:
            break
        await trio.sleep(work.get(number, 0))
    return got


async def test_work_between_ticks_does_not_shift_them(autojump_clock: object) -> None:
    assert await _times(4, {0: 3, 1: 9, 2: 1}) == [(0, 0), (1, 10), (2, 20), (3, 30)]


async def test_after_a_stall_missed_ticks_are_left_out(autojump_clock: object) -> None:
    assert await _times(4, {1: 37}) == [(0, 0), (1, 10), (5, 50), (6, 60)]


async def test_jitter_delays_each_tick_but_never_adds_up(autojump_clock: object) -> None:
    got = await _times(200, {}, jitter=4)
    late = [at - 10 * number for number, at in got]
    assert [number for number, _ in got] == list(range(200))
    assert all(0 <= by <= 4 for by in late)
    assert len({round(by, 6) for by in late}) > 100


def test_jitter_as_long_as_the_period_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ticks(1, jitter=1, rng=random.Random(1))
    with pytest.raises(ValueError, match="rng"):
        ticks(1, jitter=0.5)

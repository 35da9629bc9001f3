"""Ticks neither drift nor burst."""

from __future__ import annotations

import trio

from gpustack.nursery import ticks


async def _times(count: int, work: dict[int, float]) -> list[tuple[int, float]]:
    begun, got = trio.current_time(), []
    async for number in ticks(10):
        got.append((number, trio.current_time() - begun))
        if len(got) == count:
            break
        await trio.sleep(work.get(number, 0))
    return got


async def test_work_between_ticks_does_not_shift_them(autojump_clock: object) -> None:
    assert await _times(4, {0: 3, 1: 9, 2: 1}) == [(0, 0), (1, 10), (2, 20), (3, 30)]


async def test_after_a_stall_missed_ticks_are_left_out(autojump_clock: object) -> None:
    assert await _times(4, {1: 37}) == [(0, 0), (1, 10), (5, 50), (6, 60)]

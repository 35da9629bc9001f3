"""Wakes coalesce and are never lost."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from gpustack.nursery import AsyncValue, Wake, first_of


async def test_wakes_before_the_wait_are_one() -> None:
    wake = Wake()
    wake.wake()
    wake.wake()
    assert await wake.wait() is True
    assert await wake.wait(at_most=0) is False


async def test_waiting_gives_up_after_the_time_given(autojump_clock: object) -> None:
    begun = trio.current_time()
    assert await Wake().wait(at_most=60) is False
    assert trio.current_time() - begun == 60


async def test_a_cancelled_wait_does_not_swallow_the_wake() -> None:
    wake = Wake()
    wake.wake()
    with trio.CancelScope() as scope:
        scope.cancel()
        await wake.wait()
    assert scope.cancelled_caught
    assert await wake.wait(at_most=0) is True


async def test_a_wake_that_comes_while_another_waiter_returns_is_kept() -> None:
    for _ in range(20):  # in either order, as the scheduler pleases
        wake = Wake()

        async def wait_then_wake(wake: Wake) -> None:
            await wake.wait()
            wake.wake()

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_then_wake, wake)
                nursery.start_soon(wake.wait)
                await trio.testing.wait_all_tasks_blocked()
                wake.wake()
        assert await wake.wait(at_most=0) is True


@given(st.lists(st.sampled_from(["change", "change", "yield", "pause"]), max_size=60))
def test_law_a_loop_that_looks_after_each_wake_ends_up_having_seen_the_last_change(steps: list[str]) -> None:
    async def main() -> None:
        wake, value, seen = Wake(), 0, 0

        async def look() -> None:
            nonlocal seen
            while True:
                await wake.wait()
                await trio.lowlevel.checkpoint()
                seen = value

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            for step in steps:
                if step == "change":
                    value += 1
                    wake.wake()
                elif step == "yield":
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            assert seen == value
            nursery.cancel_scope.cancel()

    trio.run(main)


async def test_latest_gives_the_newest_value_to_each_who_has_not_seen_it() -> None:
    latest = AsyncValue("a")
    latest.set("b")
    latest.set("c")
    assert await latest.changed(0) == (2, "c")
    got: list[tuple[int, str]] = []

    async def follow() -> None:
        got.append(await latest.changed(2))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            latest.set("d")
    assert got == [(3, "d"), (3, "d")]


async def test_of_several_waits_the_first_ends_and_the_others_are_cancelled(
    autojump_clock: trio.abc.Clock,
) -> None:
    cancelled = []

    async def wait(seconds: float) -> None:
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            cancelled.append(seconds)
            raise

    assert await first_of(lambda: wait(3), lambda: wait(1), lambda: wait(2)) == 1
    assert sorted(cancelled) == [2, 3]

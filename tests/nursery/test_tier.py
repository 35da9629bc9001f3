"""Whatever ends the block, inner services stop before outer ones, and none lives on."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from gpustack.nursery import NEVER, RestartPolicy, ServiceReturned, Tier, function_service, open_tier


@attrs.define
class Piece:
    """A service that writes its life into a log."""

    name: str
    log: list[str]
    cleanup: float = 1.0
    crash: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, *, task_status: trio.TaskStatus[Any]) -> None:
        self.log.append(f"{self.name} up")
        task_status.started(self.name)
        try:
            await self.crash.wait()
            raise ValueError(self.name)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.cleanup)
            self.log.append(f"{self.name} down")


async def test_services_stop_in_reverse_order_and_inner_tiers_first(autojump_clock: object) -> None:
    log: list[str] = []
    async with open_tier("a") as a:
        assert await a.start(Piece("store", log)) == "store"
        await a.start(Piece("flush", log))
        async with open_tier("b") as b:
            await b.start(Piece("sched", log))
            log.clear()
    assert log == ["sched down", "flush down", "store down"]


async def test_each_service_is_gone_before_the_next_is_told(autojump_clock: object) -> None:
    """A service may rely on those opened before it until the very end."""
    log: list[str] = []

    async def reader(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            log.append(f"reader ends while {log[0]}")

    async with open_tier("a") as a:
        await a.start(Piece("store", log))
        await a.start(function_service("reader", reader))
    assert log == ["store up", "reader ends while store up", "store down"]


async def test_the_order_holds_when_cancelled_from_outside(autojump_clock: object) -> None:
    log: list[str] = []
    with trio.move_on_after(5) as scope:
        async with open_tier("a") as a:
            await a.start(Piece("store", log))
            async with open_tier("b") as b:
                await b.start(Piece("sched", log))
                await b.start(Piece("gate", log))
                log.clear()
                await trio.sleep_forever()
    assert scope.cancelled_caught
    assert log == ["gate down", "sched down", "store down"]


async def test_outer_services_serve_on_while_the_block_unwinds_after_one_crashed(
    autojump_clock: object,
) -> None:
    log: list[str] = []
    bus = Piece("bus", log)
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with open_tier("a") as a:
            await a.start(Piece("store", log))
            await a.start(bus)
            await a.start(Piece("edge", log))
            async with open_tier("b") as b:
                await b.start(Piece("sched", log, cleanup=9))
                log.clear()
                bus.crash.set()
                await trio.sleep_forever()
    assert log == ["bus down", "sched down", "edge down", "store down"]


async def test_a_crash_in_an_inner_tier_leaves_outer_services_for_last(autojump_clock: object) -> None:
    log: list[str] = []
    sched = Piece("sched", log)
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with open_tier("a") as a:
            await a.start(Piece("store", log))
            async with open_tier("b") as b:
                await b.start(Piece("watch", log))
                await b.start(sched)
                log.clear()
                sched.crash.set()
                await trio.sleep_forever()
    assert log == ["sched down", "watch down", "store down"]


async def test_a_failing_block_stops_its_services_in_order_and_is_reported(autojump_clock: object) -> None:
    log: list[str] = []
    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        async with open_tier("a") as a, open_tier("b") as b:
            await a.start(Piece("store", log))
            await b.start(Piece("sched", log))
            log.clear()
            raise KeyError
    assert log == ["sched down", "store down"]


async def test_a_service_that_hangs_does_not_keep_those_before_it_from_their_end(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    with caplog.at_level(logging.ERROR):
        async with open_tier("a", stop_within=60) as a:
            await a.start(Piece("store", log))
            await a.start(Piece("stuck", log, cleanup=500), stop_within=10)
            log.clear()
    assert log == ["store down", "stuck down"]
    assert "Service a/stuck has not stopped in time" in caplog.text


async def test_the_bound_of_a_tier_holds_for_all_its_services_together(autojump_clock: object) -> None:
    ends: list[float] = []

    async def slow(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            ends.append(trio.current_time())
            with trio.CancelScope(shield=True):
                await trio.sleep(100)

    async with open_tier("a", stop_within=10) as a:
        for number in range(4):
            await a.start(function_service(f"slow-{number}", slow))
        begun = trio.current_time()
    assert [end - begun for end in ends] == [0, 10, 10, 10]


async def test_an_inner_block_that_hangs_cannot_hold_the_shields_of_outer_services_for_ever(
    autojump_clock: object,
) -> None:
    log: list[str] = []
    with trio.move_on_after(1):
        async with open_tier("a", stop_within=10) as a:
            await a.start(Piece("store", log))
            async with open_tier("b", stop_within=20) as b:
                await b.start(Piece("stuck", log, cleanup=500))
                assert a.unwinds_within == 30
                log.clear()
                await trio.sleep_forever()
    assert log == ["store down", "stuck down"]


async def test_cancelling_while_a_service_starts_ends_it_even_if_it_reports_started_just_then(
    autojump_clock: object,
) -> None:
    log: list[str] = []

    async def late(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            task_status.started()
            await trio.lowlevel.checkpoint_if_cancelled()
            log.append("never")

    with trio.move_on_after(1) as scope:
        async with open_tier("a") as a:
            await a.start(Piece("store", log))
            await a.start(function_service("late", late))
    assert scope.cancelled_caught
    assert log == ["store up", "store down"]


async def test_failing_to_start_is_raised_to_the_starter() -> None:
    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        raise OSError("port taken")

    async with open_tier("a") as a:
        with pytest.raises(OSError, match="port taken"):
            await a.start(function_service("edge", run))
        with pytest.raises(OSError, match="port taken"):
            await a.start(function_service("edge", run), restart=RestartPolicy())


async def test_a_service_that_returns_ends_its_tier() -> None:
    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    with pytest.RaisesGroup(pytest.RaisesExc(ServiceReturned, match="service short of tier a")):
        async with open_tier("a") as a:
            await a.start(function_service("short", run))
            await trio.sleep_forever()


async def test_a_stopping_tier_takes_no_new_service() -> None:
    log: list[str] = []
    async with open_tier("a") as a:
        pass
    with pytest.raises(RuntimeError, match="stopping"):
        await a.start(Piece("late", log))
    assert log == []


async def test_a_start_from_elsewhere_that_meets_the_stop_does_not_hold_it_up(autojump_clock: object) -> None:
    begun = trio.Event()

    async def slow(*, task_status: trio.TaskStatus[None]) -> None:
        begun.set()
        await trio.sleep(50)
        task_status.started()
        await trio.sleep_forever()

    async def start(tier: Tier) -> None:
        with pytest.raises(RuntimeError, match="without calling"):
            await tier.start(function_service("slow", slow))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, open_tier("a") as a:
            nursery.start_soon(start, a)
            await begun.wait()


async def test_a_supervised_service_is_restarted_and_an_unsupervised_one_is_not(
    autojump_clock: object,
) -> None:
    lives = 0

    async def frail(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal lives
        lives += 1
        task_status.started()
        await trio.sleep(1)
        raise OSError("gone")

    with trio.move_on_after(6):
        async with open_tier("a", restart=RestartPolicy(first=1)) as a:
            await a.start(function_service("frail", frail))
            await trio.sleep_forever()
    assert lives == 3
    with pytest.RaisesGroup(OSError):
        async with open_tier("a", restart=RestartPolicy(first=1)) as a:
            await a.start(function_service("frail", frail), restart=NEVER)
            await trio.sleep_forever()
    assert lives == 4


def test_a_tier_without_a_finite_bound_is_refused() -> None:
    async def main() -> None:
        async with open_tier("a", stop_within=float("inf")):
            pass

    with pytest.raises(ValueError, match="finite"):
        trio.run(main)


async def test_repr_tells_what_a_tier_is_doing() -> None:
    async with open_tier("a") as a:
        await a.start(Piece("store", [], cleanup=0))
        assert repr(a) == "<Tier a: running store>"
    assert repr(a) == "<Tier a: stopping nothing>"


@given(
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    cleanup=st.lists(st.floats(0, 3), min_size=12, max_size=12),
    end=st.one_of(st.just("return"), st.just("cancel"), st.integers(0, 11)),
)
def test_law_services_always_go_down_in_the_reverse_of_their_way_up(
    sizes: list[int], cleanup: list[float], end: str | int
) -> None:
    """Whatever ends the tree, all that did not crash by itself stops in the reverse order of start."""
    log: list[str] = []
    pieces: list[Piece] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with AsyncExitStack() as stack:
                for number, size in enumerate(sizes):
                    tier = await stack.enter_async_context(open_tier(f"t{number}"))
                    for _ in range(size):
                        pieces.append(Piece(f"s{len(pieces)}", log, cleanup[len(pieces)]))
                        await tier.start(pieces[-1])
                log.clear()
                if end == "return":
                    return
                if end == "cancel" or not pieces:
                    scope.cancel()
                else:
                    pieces[int(end) % len(pieces)].crash.set()
                await trio.sleep_forever()

    crashed = None if isinstance(end, str) or not sum(sizes) else f"s{end % sum(sizes)}"
    clock = trio.testing.MockClock(autojump_threshold=0)
    if crashed is None:
        trio.run(main, clock=clock)
    else:
        with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
            trio.run(main, clock=clock)
    assert f"{crashed} down" in log or crashed is None
    others = [line for line in log if line != f"{crashed} down"]
    assert others == [f"{piece.name} down" for piece in reversed(pieces) if piece.name != crashed]

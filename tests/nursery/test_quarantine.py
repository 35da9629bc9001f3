"""A row that cannot be handled is left out for a while; everything else goes on."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio

from gpustack.nursery import Quarantine, RestartPolicy


class Away(Exception):
    """What concerns all rows."""


@attrs.define
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def faults(clock: Clock) -> Quarantine:
    back_off = RestartPolicy(first=1, factor=2, ceiling=4, budget=None, window=math.inf)
    return Quarantine("loop", passing=(Away,), clock=clock, back_off=back_off, most=3)


def fail(faults: Quarantine, row: Any, error: Exception) -> Any:
    with faults.row(row) as trial:
        raise error
    return trial.fault


def test_a_faulty_row_waits_longer_with_each_failure_and_a_good_step_forgets_them(
    faults: Quarantine, clock: Clock
) -> None:
    pauses = []
    for _ in range(4):
        fail(faults, 7, ValueError("no"))
        assert faults.holds(7)
        pauses.append(faults.due_in())
        clock.now += faults.due_in()
        assert not faults.holds(7)
    assert pauses == [1, 2, 4, 4]
    with faults.row(7) as trial:
        pass
    assert trial.fault is None
    assert faults.fault_of(7) is None
    assert faults.due_in() == math.inf
    assert fail(faults, 7, ValueError("no")).streak == 1


def test_other_rows_are_not_held(faults: Quarantine) -> None:
    fail(faults, 7, ValueError("no"))
    assert not faults.holds(8)
    assert repr(faults) == "<Quarantine of loop: 1 rows aside>"


def test_a_fault_is_logged_once_with_its_traceback_and_again_when_it_is_another(
    faults: Quarantine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            fail(faults, 7, ValueError("no"))
        fail(faults, 7, KeyError("other"))
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    assert "loop=loop row=7" in caplog.text


def test_what_the_exception_says_is_not_in_the_sentence_that_is_shown(faults: Quarantine) -> None:
    """Libraries put headers and addresses into it, with what is secret in them."""
    fault = fail(faults, 7, ValueError("Illegal header value b'Bearer hf_secret\\n'"))
    assert "hf_secret" not in fault.sentence
    assert "ValueError" in fault.sentence


def test_what_concerns_all_rows_rises(faults: Quarantine) -> None:
    with pytest.raises(Away), faults.row(7):
        raise Away
    assert not faults.holds(7)


async def test_a_cancellation_is_no_fault_of_a_row(faults: Quarantine) -> None:
    with trio.move_on_after(0) as scope, faults.row(7):
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not faults.holds(7)


async def test_a_group_of_faults_is_one(faults: Quarantine) -> None:
    with faults.row(7) as trial:
        async with trio.open_nursery() as nursery:

            async def broken() -> None:
                raise ValueError("no")

            nursery.start_soon(broken)
    assert trial.fault is not None


def test_rows_that_are_gone_are_forgotten_and_there_are_never_too_many(faults: Quarantine) -> None:
    for row in range(10):
        fail(faults, row, ValueError("no"))
    assert [row for row in range(10) if faults.holds(row)] == [7, 8, 9]
    faults.keep_only({8})
    assert [row for row in range(10) if faults.holds(row)] == [8]
    faults.forget(8)
    assert not faults.holds(8)


def test_a_loop_that_does_not_get_to_a_row_rests_all_the_same(faults: Quarantine, clock: Clock) -> None:
    fail(faults, 7, ValueError("no"))
    clock.now += 1000
    assert faults.due_in() > 0


async def test_of_many_rows_at_once_the_one_that_fails_is_found(faults: Quarantine, clock: Clock) -> None:
    tries: list[list[int]] = []

    async def act(rows: Mapping[int, str]) -> int:
        await trio.lowlevel.checkpoint()
        tries.append(list(rows))
        if "bad" in rows.values():
            raise ValueError("no")
        return len(rows)

    rows = {1: "good", 2: "bad", 3: "good"}
    assert await faults.together(rows, act) == [({1: "good"}, 1), ({3: "good"}, 1)]
    assert tries == [[1, 2, 3], [1], [2], [3]]
    tries.clear()
    assert await faults.together(rows, act) == [({1: "good", 3: "good"}, 2)]
    assert tries == [[1, 3]], "the faulty one is left out"
    clock.now += 1
    assert await faults.together({1: "good", 2: "mended"}, act) == [({1: "good", 2: "mended"}, 2)]
    assert faults.fault_of(2) is None
    assert await faults.together({}, act) == []


async def test_what_concerns_all_rows_rises_from_many_at_once(faults: Quarantine) -> None:
    async def act(rows: Mapping[int, str]) -> None:
        await trio.lowlevel.checkpoint()
        raise Away

    with pytest.raises(Away):
        await faults.together({1: "a", 2: "b"}, act)
    with pytest.raises(Away):
        await faults.together({1: "a"}, act)

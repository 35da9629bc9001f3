"""What a supervised service survives, and what it does not."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

from gpustack.nursery import NEVER, RestartPolicy, ServiceReturned, function_service, supervise


async def test_a_failed_service_comes_back_after_growing_delays(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    at: list[float] = []
    begun = trio.current_time()

    async def run(*, task_status: trio.TaskStatus[int]) -> None:
        at.append(trio.current_time() - begun)
        task_status.started(len(at))
        if len(at) < 4:
            raise OSError("gone")
        await trio.sleep_forever()

    async def keep(*, task_status: trio.TaskStatus[Any]) -> None:
        await supervise(function_service("s", run), restart=RestartPolicy(first=1), task_status=task_status)

    with caplog.at_level(logging.ERROR):
        async with trio.open_nursery() as nursery:
            assert await nursery.start(keep) == 1
            await trio.sleep(30)
            nursery.cancel_scope.cancel()
    assert at == [0, 1, 3, 7]
    assert [record.exc_info is not None for record in caplog.records] == [True] * 3
    assert caplog.records[0].getMessage() == "Service s failed, trying again in 1.0 s"


async def test_out_of_budget_the_last_failure_is_raised_and_not_logged(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await supervise(function_service("s", run), restart=RestartPolicy(budget=2))
    assert len(caplog.records) == 2


async def test_returning_is_a_failure() -> None:
    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    with pytest.raises(ServiceReturned):
        await supervise(function_service("s", run), restart=NEVER)


async def test_failing_before_started_is_raised_at_once() -> None:
    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        raise OSError("port taken")

    with pytest.raises(OSError, match="port taken"):
        await supervise(function_service("s", run), restart=RestartPolicy())


async def test_a_group_of_failures_from_within_is_survived_too(autojump_clock: object) -> None:
    lives = 0

    async def bad() -> None:
        await trio.sleep(1)
        raise OSError("x")

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal lives
        lives += 1
        async with trio.open_nursery() as nursery:
            if lives == 1:
                nursery.start_soon(bad)
                nursery.start_soon(bad)
            task_status.started()
            await trio.sleep_forever()

    with trio.move_on_after(20):
        await supervise(function_service("s", run), restart=RestartPolicy())
    assert lives == 2


async def test_a_failure_on_the_way_out_of_a_cancellation_is_not_restarted(autojump_clock: object) -> None:
    lives = 0

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal lives
        lives += 1
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("while stopping")

    with pytest.RaisesGroup(OSError, flatten_subgroups=True), trio.move_on_after(1):
        await supervise(function_service("s", run), restart=RestartPolicy())
    assert lives == 1

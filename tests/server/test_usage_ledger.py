"""Counts reach the store once and only once, whatever happens on the way."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gpustack.domain.usage import ModelUsage, Operation
from gpustack.server.usage_ledger import UsageKey, UsageLedger
from gpustack.store import Store
from gpustack.store.usage_history import rows
from tests.fresh_store import open_fresh

NOW = datetime(2026, 1, 2, 23, 59, 58, tzinfo=UTC)


class Clock:
    now = NOW

    def __call__(self) -> datetime:
        return self.now


def key(
    user: int = 1, *, model: int = 1, name: str = "ada", operation: Operation = Operation.EMBEDDING
) -> UsageKey:
    return UsageKey(
        user_id=user, api_key_id=-1, model_id=model, operation=operation, username=name, model_name="m"
    )


def count(ledger: UsageLedger, times: int = 1, of: UsageKey | None = None) -> None:
    for _ in range(times):
        ledger.add(of or key(), prompt=3, completion=5, failed=False)


@asynccontextmanager
async def open_at(folder: Path) -> AsyncIterator[Store]:
    store = await open_fresh(folder, Clock())
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def stored(store: Store) -> Sequence[ModelUsage]:
    found: Sequence[ModelUsage] = await store.query(
        functools.partial(rows, start=date(2026, 1, 1), end=date(2026, 12, 31))
    )
    return found


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_at(tmp_path) as store:
        yield store


async def test_what_was_counted_is_summed_by_who_and_what(store: Store) -> None:
    ledger = UsageLedger(store, Clock())
    count(ledger, 3)
    count(ledger, 2, key(2))
    count(ledger, 1, key(operation=Operation.COMPLETION))
    ledger.add(key(), prompt=0, completion=0, failed=True)
    assert repr(ledger) == "<UsageLedger: 3 rows to store>"
    await ledger.flush()
    await ledger.flush()
    count(ledger, 1, key(name="Ada L."))
    await ledger.flush()
    found = {(row.user_id, row.operation): row for row in await stored(store)}
    first = found[1, Operation.EMBEDDING]
    assert (first.request_count, first.failed_count) == (5, 1)
    assert (first.prompt_token_count, first.completion_token_count) == (12, 20)
    assert first.username == "Ada L."
    assert found[2, Operation.EMBEDDING].request_count == 2
    assert found[1, Operation.COMPLETION].request_count == 1
    assert len(found) == 3


async def test_a_request_counts_on_the_day_it_ended_and_not_on_that_of_the_flush(store: Store) -> None:
    clock = Clock()
    ledger = UsageLedger(store, clock)
    count(ledger)
    clock.now = NOW + timedelta(seconds=4)
    count(ledger, 2)
    await ledger.flush()
    assert [(row.date, row.request_count) for row in await stored(store)] == [
        (date(2026, 1, 2), 1),
        (date(2026, 1, 3), 2),
    ]


async def test_stopping_stores_what_is_left(store: Store) -> None:
    ledger = UsageLedger(store, Clock())
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        count(ledger, 7)
        nursery.cancel_scope.cancel()
    assert [row.request_count for row in await stored(store)] == [7]


class Held:
    """A work that keeps the writer busy until it is let go."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.go = threading.Event()
        self._token = trio.lowlevel.current_trio_token()

    def __call__(self, tx: Any) -> None:
        self._token.run_sync_soon(self.begun.set)
        assert self.go.wait(30)


async def test_a_stop_in_the_midst_of_a_flush_neither_loses_nor_doubles(store: Store) -> None:
    ledger = UsageLedger(store, Clock())
    held = Held()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, held)
        await held.begun.wait()
        count(ledger, 4)
        async with trio.open_nursery() as stopping:
            await stopping.start(ledger.run)
            stopping.start_soon(ledger.flush)
            await trio.testing.wait_all_tasks_blocked()
            count(ledger, 2)
            stopping.cancel_scope.cancel()
            held.go.set()
    assert [row.request_count for row in await stored(store)] == [6]


async def test_a_flush_whose_turn_does_not_come_is_withdrawn_and_tried_again(
    store: Store, mock_clock: trio.testing.MockClock
) -> None:
    ledger = UsageLedger(store, Clock())
    held = Held()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, held)
        await held.begun.wait()
        count(ledger, 4)
        nursery.start_soon(ledger.flush)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(6)
        await trio.testing.wait_all_tasks_blocked()
        assert repr(ledger) == "<UsageLedger: 1 rows to store>"
        held.go.set()
    count(ledger, 2)
    await ledger.flush()
    assert [row.request_count for row in await stored(store)] == [6]


async def test_a_flush_given_up_when_it_had_begun_is_not_counted_again(
    store: Store, mock_clock: trio.testing.MockClock
) -> None:
    ledger = UsageLedger(store, Clock())
    before, behind = Held(), Held()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, before)
        await before.begun.wait()
        count(ledger, 4)
        nursery.start_soon(ledger.flush)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(store.write, behind)
        await trio.testing.wait_all_tasks_blocked()
        before.go.set()
        await behind.begun.wait()  # in the same commit, after ours
        mock_clock.jump(6)
        await trio.testing.wait_all_tasks_blocked()
        assert repr(ledger) == "<UsageLedger: 0 rows to store>"
        behind.go.set()
    count(ledger, 2)
    await ledger.flush()
    assert [row.request_count for row in await stored(store)] == [6]


async def test_a_database_that_is_away_loses_nothing(tmp_path: Path) -> None:
    ledger: UsageLedger
    async with open_at(tmp_path / "one") as store:
        ledger = UsageLedger(store, Clock())
        count(ledger, 2)
    count(ledger, 1)
    await ledger.flush()  # the store has stopped
    count(ledger, 1)
    assert repr(ledger) == "<UsageLedger: 1 rows to store>"
    async with open_at(tmp_path / "two") as again:
        other = UsageLedger(again, Clock(), open=dict(ledger._open))
        await other.flush()
        assert [row.request_count for row in await stored(again)] == [4]


async def test_what_is_counted_after_the_store_was_given_up_waits_for_the_next_daemon_without_a_warning(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A hand-over under load: streams that go on are counted when they end."""
    folder = tmp_path / "usage"
    async with trio.open_nursery() as nursery:
        ledger = UsageLedger(store, Clock(), folder)
        await nursery.start(ledger.run)
        count(ledger, 2)
        await ledger.give_up()
        count(ledger, 3)
        await ledger.flush()
        assert [row.request_count for row in await stored(store)] == [2]
        nursery.cancel_scope.cancel()
    assert not [record for record in caplog.records if record.levelname != "INFO"]
    following = UsageLedger(store, Clock(), folder)
    await following.collect()
    await following.flush()
    assert [row.request_count for row in await stored(store)] == [5]

"""Events that no transaction took reach the store once, are counted where they repeat, and are not lost silently."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from gpustack.domain.audit import AuditEvent, AuditOutcome
from gpustack.errors import Unavailable
from gpustack.server.audit_trail import MOST_WAITING, AuditTrail
from gpustack.store import Store, audit_history
from gpustack.store.audit_history import AuditFilter
from tests.fresh_store import open_fresh

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def clock() -> datetime:
    return NOW


@asynccontextmanager
async def open_at(folder: Path) -> AsyncIterator[Store]:
    store = await open_fresh(folder, clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


def event(action: str = "model.delete", **more: Any) -> AuditEvent:
    fields = {"at": NOW, "outcome": AuditOutcome.REFUSED, "status": 403, "address": "10.0.0.1", **more}
    return AuditEvent(action=action, **fields)


async def stored(store: Store) -> list[AuditEvent]:
    found = await store.query(functools.partial(audit_history.page, wanted=AuditFilter(), skip=0, most=1000))
    return found[::-1]


async def until(store: Store, count: int) -> None:
    with trio.fail_after(30):
        while True:
            if len(await stored(store)) == count:
                return
            await trio.sleep(0.01)


@attrs.define(eq=False)
class AwayStore:
    """A database that is away as long as a test says so."""

    away: bool = True
    kept: list[AuditEvent] = attrs.field(factory=list)
    hang: bool = False

    async def write(self, work: Any) -> Any:
        if self.hang:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if self.away:
            raise Unavailable("The database is away", 1.0)
        return work(self)

    def insert(self, record: AuditEvent) -> AuditEvent:
        self.kept.append(record)
        return record

    def forget_events(self, before: datetime, most: int) -> int:
        return 0


def trail_of(store: Any, folder: Path | None = None, **more: Any) -> AuditTrail:
    return AuditTrail(store, clock, trio.current_time, folder, **more)


async def test_an_event_is_in_the_store_soon(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store, trio.open_nursery() as nursery:
        trail = trail_of(store)
        await nursery.start(trail.run)
        trail.add(event())
        await until(store, 1)
        nursery.cancel_scope.cancel()


async def test_events_wait_for_the_database_and_are_told_of_once(autojump_clock: object) -> None:
    away = AwayStore()
    trail = trail_of(away)
    async with trio.open_nursery() as nursery:
        await nursery.start(trail.run)
        for number in range(450):
            trail.add(event(f"tests.{number}"))
        await trio.sleep(60)
        assert not away.kept
        away.away = False
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert [one.action for one in away.kept] == [f"tests.{number}" for number in range(450)]


async def test_what_a_stopped_daemon_could_not_store_the_next_one_does(tmp_path: Path) -> None:
    spool = tmp_path / "audit"
    async with trio.open_nursery() as nursery:
        trail = trail_of(AwayStore(), spool)
        await nursery.start(trail.run)
        trail.add(event(details={"changes": {"replicas": {"from": 1, "to": 2}}}))
        nursery.cancel_scope.cancel()
    (left,) = spool.iterdir()
    assert left.stat().st_mode & 0o077 == 0 or spool.stat().st_mode & 0o077 == 0
    async with open_at(tmp_path) as store:
        trail = trail_of(store, spool)
        await trail.collect()
        await trail.flush()
        (found,) = await stored(store)
    assert (found.action, found.at) == ("model.delete", NOW)
    assert found.details == {"changes": {"replicas": {"from": 1, "to": 2}}}
    assert not list(spool.iterdir())


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'[{"action": 1}]', b"\xff"])
async def test_a_file_that_is_none_stops_nobody(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "1.json").write_bytes(text)
    trail = trail_of(AwayStore(), tmp_path)
    await trail.collect()
    assert repr(trail) == "<AuditTrail: 0 events to store, 0 kinds counted>"


@pytest.mark.attack("audit")
async def test_what_is_lost_is_counted_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    away = AwayStore()
    trail = trail_of(away)
    for _ in range(MOST_WAITING + 7):
        trail.add(event())
    for _ in range(10):
        await trail.flush()
    away.away = False
    await trail.flush()
    assert len(away.kept) == MOST_WAITING + 1
    lost = [one for one in away.kept if one.action == "audit.lost"]
    assert [one.details for one in lost] == [{"count": 7}]
    assert caplog.text.count("Audit events were lost") == 1, "not once for each try to store it"


@pytest.mark.attack("audit")
async def test_a_loss_that_could_not_be_stored_is_left_to_the_next_daemon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        trail = trail_of(AwayStore(), tmp_path)
        await nursery.start(trail.run)
        for _ in range(MOST_WAITING + 7):
            trail.add(event())
        nursery.cancel_scope.cancel()
    assert caplog.text.count("Audit events were lost") == 1
    back = AwayStore(away=False)
    trail = trail_of(back, tmp_path)
    await trail.collect()
    await trail.flush()
    counts = [one.details["count"] for one in back.kept if one.action == "audit.lost"]
    assert sorted(counts) == [1, 7], "the one that this made too many is told of as well"
    assert len(back.kept) == MOST_WAITING + 1


async def test_a_write_that_is_given_up_is_not_told_of_twice(autojump_clock: object) -> None:
    away = AwayStore(away=False, hang=True)
    trail = trail_of(away)
    trail.add(event())
    await trail.flush()
    assert not away.kept
    away.hang = False
    await trail.flush()
    assert len(away.kept) == 1


async def test_what_repeats_is_counted_for_as_long_as_it_does(autojump_clock: object) -> None:
    away = AwayStore(away=False)
    trail = trail_of(away)
    async with trio.open_nursery() as nursery:
        await nursery.start(trail.run)
        for _ in range(300):
            trail.add_counted(event())
            await trio.sleep(1)
        trail.add_counted(event(address="10.0.0.2"))
        await trio.sleep(200)
        assert repr(trail) == "<AuditTrail: 0 events to store, 0 kinds counted>"
        nursery.cancel_scope.cancel()
    of_one = [one for one in away.kept if one.address == "10.0.0.1"]
    assert sum(one.details.get("count", 1) for one in of_one) == 300
    assert len(of_one) < 10
    assert len(away.kept) == len(of_one) + 1


async def test_what_is_counted_is_told_of_when_the_daemon_stops() -> None:
    away = AwayStore(away=False)
    trail = trail_of(away)
    async with trio.open_nursery() as nursery:
        await nursery.start(trail.run)
        trail.add_counted(event())
        trail.add_counted(event())
        nursery.cancel_scope.cancel()
    assert [one.details.get("count") for one in away.kept] == [None, 1]


async def test_old_events_end_and_young_ones_stay(tmp_path: Path) -> None:
    async with open_at(tmp_path) as store, trio.open_nursery() as nursery:
        first = trail_of(store)
        for days in range(10):
            first.add(event(f"tests.{days}", at=NOW - timedelta(days=days)))
        await first.flush()
        await nursery.start(trail_of(store, keep_for=timedelta(days=4)).run)
        await until(store, 5)
        nursery.cancel_scope.cancel()
    async with open_at(tmp_path) as store:
        assert sorted(one.action for one in await stored(store)) == [f"tests.{days}" for days in range(5)]

"""The last use of API keys reaches the records, and not more often than it must."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from gpustack.domain.access import ApiKey
from gpustack.domain.record import table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.server.key_use import KeyUseLedger
from gpustack.store import Store
from tests.fresh_store import open_fresh

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)


@attrs.define
class World:
    store: Store
    use: KeyUseLedger
    now: datetime = BEGIN

    async def key(self, name: str) -> int:
        key = ApiKey(name=name, user_id=1, access_key=name, secret_hash="x")
        return (await self.store.write(lambda tx: tx.insert(key))).id

    def stored(self, key_id: int) -> datetime | None:
        return self.store.snapshot.api_keys[key_id].last_used_at


class Stuck:
    """A database that is there and answers nothing."""

    snapshot = Snapshot(
        tables={table_of(ApiKey): {1: ApiKey(id=1, name="k", user_id=1, access_key="k", secret_hash="x")}}
    )

    async def write(self, work: object) -> None:
        await trio.sleep_forever()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made: World
    store = await open_fresh(tmp_path, lambda: BEGIN)
    made = World(store, KeyUseLedger(store, lambda: made.now))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield made
        nursery.cancel_scope.cancel()


async def test_a_key_is_dated_when_it_was_used_and_at_most_once_a_minute(world: World) -> None:
    used, other = await world.key("used"), await world.key("other")
    written = []
    for seconds in range(0, 180, 10):
        world.now = BEGIN + timedelta(seconds=seconds)
        for _ in range(100):
            world.use.note(used)
        before = world.store.commits
        await world.use.flush()
        written.extend([seconds] * (world.store.commits - before))
    assert written == [0, 60, 120]
    assert world.stored(used) == BEGIN + timedelta(seconds=120)
    assert world.stored(other) is None
    assert repr(world.use) == "<KeyUseLedger: 1 keys used>"


async def test_many_keys_are_one_write_and_deleted_ones_are_forgotten(world: World) -> None:
    keys = [await world.key(f"k{n}") for n in range(50)]
    gone = keys.pop()
    for key in (*keys, gone, 999):
        world.use.note(key)
    await world.store.write(lambda tx: tx.delete(ApiKey, gone))
    before = world.store.commits
    await world.use.flush()
    assert world.store.commits == before + 1
    assert all(world.stored(key) == BEGIN for key in keys)
    assert repr(world.use) == "<KeyUseLedger: 49 keys used>"


async def test_what_is_not_written_yet_is_written_when_it_stops(world: World) -> None:
    key = await world.key("k")
    async with trio.open_nursery() as nursery:
        await nursery.start(world.use.run)
        world.use.note(key)
        nursery.cancel_scope.cancel()
    assert world.stored(key) == BEGIN


async def test_what_is_given_up_is_written_and_waits_for_nothing_any_more(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Another daemon takes the records over; what is still under way here goes on being let in."""
    key = await world.key("k")
    world.use.note(key)
    await world.use.give_up()
    assert world.stored(key) == BEGIN
    world.store.close()
    world.now = BEGIN + timedelta(hours=1)
    world.use.note(key)
    await world.use.flush()
    await world.use.give_up()
    assert not caplog.records


async def test_a_store_that_takes_nothing_holds_nobody_up(autojump_clock: trio.testing.MockClock) -> None:
    use = KeyUseLedger(Stuck(), lambda: BEGIN)  # type: ignore[arg-type]
    use.note(1)
    before = trio.current_time()
    await use.give_up()
    assert trio.current_time() - before == pytest.approx(2.0)

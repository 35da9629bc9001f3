"""How far back changes are kept, in memory and in the database."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest
import sqlalchemy as sa

from gpustack.domain.access import User
from gpustack.domain.record import Change, ChangeKind
from gpustack.errors import RevisionExpired
from gpustack.store import journal, writer
from gpustack.store.change_buffer import ChangeBuffer

from .conftest import Clock, Opened


def change(revision: int) -> Change:
    return Change(revision, ChangeKind.CREATED, "users", User(id=revision, username=f"u{revision}"))


def test_a_ring_gives_what_came_after_and_says_when_it_cannot() -> None:
    ring = ChangeBuffer(floor=0, newest=0, size=3)
    assert ring.since(0) == []
    ring.extend([change(1), change(2)])
    assert ring.since(0) == [change(1), change(2)]
    ring.extend([change(3), change(5)])
    assert repr(ring) == "<ChangeBuffer: 3 changes, 1 to 5>"
    assert ring.since(1) == [change(2), change(3), change(5)]
    assert ring.since(4) == [change(5)]
    assert ring.since(5) == []
    with pytest.raises(RevisionExpired, match="too old, changes are known since 1: list again"):
        ring.since(0)
    with pytest.raises(RevisionExpired, match="newer"):
        ring.since(6)


@pytest.mark.attack("flood")
def test_large_changes_make_room_in_a_ring_before_there_are_many() -> None:
    ring = ChangeBuffer(floor=0, newest=0, bytes=100)
    ring.extend([attrs.evolve(change(revision), size=40) for revision in range(1, 5)])
    assert repr(ring) == "<ChangeBuffer: 2 changes, 2 to 4>"
    ring.extend([attrs.evolve(change(5), size=1000)])
    assert repr(ring) == "<ChangeBuffer: 0 changes, 5 to 5>"
    assert ring.since(5) == []
    ring.extend([attrs.evolve(change(6), size=100)])
    assert ring.since(5) == [change(6)]
    ring.restart(10)
    ring.extend([attrs.evolve(change(11), size=100)])
    assert ring.since(10) == [change(11)]


async def test_old_changes_go_and_revisions_go_on(opened: Opened, clock: Clock) -> None:
    async with opened() as store:
        for name in ("ada", "bob"):
            await store.write(lambda tx, name=name: tx.insert(User(username=name)))
    clock.now += journal.KEPT_FOR + timedelta(seconds=1)
    async with opened() as store:
        kept = await store.query(
            lambda conn: conn.execute(sa.text("select revision from changes")).scalars().all()
        )
        assert kept == [2]  # the newest stays, so that revisions go on from it
        with pytest.raises(RevisionExpired):
            store.changes_since(0)
        assert len(store.changes_since(1)) == 1
        await store.write(lambda tx: tx.insert(User(username="cleo")))
        assert store.snapshot.revision == 3


async def test_many_changes_are_trimmed_to_a_number(opened: Opened, clock: Clock) -> None:
    async with opened() as store:
        await store.write(lambda tx: tx.insert(User(username="ada")))
        await store.write(
            lambda tx: tx._begin_writing().execute(sa.text("update heads set revision = 20000"))
        )
        for number in range(11):
            await store.write(lambda tx, n=number: [tx.insert(User(username=f"{n}-{i}")) for i in range(100)])
        oldest = await store.query(
            lambda conn: conn.execute(sa.text("select min(revision) from changes")).scalar()
        )
        assert oldest == 20001
        assert store.snapshot.revision == 21100


@pytest.mark.attack("flood")
async def test_large_changes_are_trimmed_to_a_size(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "KEPT_CHARACTERS", 50_000)
    monkeypatch.setattr(writer, "TRIM_EVERY_BYTES", 50_000)
    async with opened() as store:
        ada = await store.write(lambda tx: tx.insert(User(username="ada")))
        for number in range(30):
            url = f"{number}".ljust(10_000, "x")
            await store.write(lambda tx, url=url: tx.change(User, ada.id, avatar_url=url))
        sizes = await store.query(
            lambda conn: conn.execute(sa.text("select length(record) from changes")).scalars().all()
        )
        assert 0 < sum(sizes) < 100_000
        assert store.snapshot.revision == 31
        change = store.changes_since(30)[0]
        assert 10_000 < change.size < 12_000
    monkeypatch.setattr(journal, "KEPT_CHARACTERS", 1)
    async with opened() as store:
        assert [change.revision for change in store.changes_since(30)] == [31]  # the newest stays
        assert store.changes_since(30)[0].size == change.size


async def test_a_change_that_cannot_be_read_ends_what_is_replayed(opened: Opened) -> None:
    async with opened() as store:
        for name in ("ada", "bob", "cleo"):
            await store.write(lambda tx, name=name: tx.insert(User(username=name)))
        await store.write(
            lambda tx: tx._begin_writing().execute(
                sa.text("update changes set record = '{}' where revision = 2")
            )
        )
    async with opened() as store:
        assert [change.revision for change in store.changes_since(2)] == [3]
        with pytest.raises(RevisionExpired):
            store.changes_since(1)

"""Everything in one database is moved to another, of any kind, or nothing is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import attrs
import pytest

from gpustack.domain.access import ApiKey, User
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance
from gpustack.domain.usage import ModelUsage, Operation
from gpustack.domain.worker import Worker
from gpustack.errors import Invalid, RevisionExpired
from gpustack.store import usage_history
from gpustack.store.database import Database, open_database
from gpustack.store.transfer import SKIPPED, transfer

from .conftest import Clock, execute, opening

DAY = date(2026, 1, 2)


@pytest.fixture
def other(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/other.db"


async def furnish(url: str, clock: Clock) -> None:
    """Records of several kinds, with ids that were given and are gone."""
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/ü.gguf")
    async with opening(url, clock) as store:
        await store.write(lambda tx: [tx.insert(User(username=f"user{n}")) for n in range(1200)])
        await store.write(lambda tx: tx.delete(User, 1200))
        await store.write(
            lambda tx: (
                tx.insert(Worker(name="wörker 一", worker_uuid="u", labels={"a": "b"})),
                tx.insert(ApiKey(name="k", user_id=1, access_key="a", secret_hash="h", expires_at=clock.now)),
                tx.insert(ModelInstance(name="m-1", model_id=1, model_name="m", source=source)),
                tx.add_usage(
                    [
                        ModelUsage(
                            date=DAY, user_id=1, api_key_id=-1, model_id=1, operation=Operation.EMBEDDING
                        )
                    ]
                ),
            )
        )


def move(source: str, target: str, **how: bool) -> int:
    one, two = open_database(source), open_database(target)
    try:
        return transfer(one, two, **how).records
    finally:
        one.close()
        two.close()


@pytest.mark.parametrize("there_and_back", [False, True])
async def test_everything_arrives_and_goes_on_as_it_was(
    url: str, other: str, clock: Clock, there_and_back: bool
) -> None:
    source, target = (url, other) if there_and_back else (other, url)
    await furnish(source, clock)
    assert move(source, target) == 1199 + 3 + 1 + 2  # the last are dated events
    async with opening(source, clock) as before, opening(target, clock) as after:
        assert after.snapshot == before.snapshot
        assert [attrs.evolve(c, before=None) for c in after.changes_since(1000)] == [
            attrs.evolve(c, before=None) for c in before.changes_since(1000)
        ]
        counts = [
            await store.query(lambda conn: usage_history.rows(conn, DAY, DAY)) for store in (before, after)
        ]
        assert counts[0] == counts[1] != []
        made = [await store.write(lambda tx: tx.insert(User(username="new"))) for store in (before, after)]
        assert made[0].id == made[1].id == 1201, "an id is never given again"
        assert after.snapshot == before.snapshot


async def test_a_database_that_holds_records_is_not_overwritten_unasked(
    url: str, other: str, clock: Clock
) -> None:
    await furnish(other, clock)
    async with opening(url, clock) as store:
        await store.write(lambda tx: tx.insert(User(username="old")))
        before = store.snapshot
    with pytest.raises(Invalid, match=r"holds records already \(changes, users\).*--replace"):
        move(other, url)
    async with opening(url, clock) as store:
        assert store.snapshot == before
    move(other, url, replace=True)
    async with opening(url, clock) as store, opening(other, clock) as source:
        assert store.snapshot.tables == source.snapshot.tables
        assert store.snapshot.revision == source.snapshot.revision + SKIPPED
        with pytest.raises(RevisionExpired):
            store.changes_since(source.snapshot.revision)


async def test_servers_that_run_on_what_is_replaced_hear_of_it(
    server_url: str, other: str, clock: Clock
) -> None:
    await furnish(other, clock)
    async with opening(server_url, clock) as store:
        await store.write(lambda tx: tx.insert(User(username="old")))
        with store.watch({"users"}) as wake:
            move(other, server_url, replace=True)
            await wake.wait()
        assert len(store.snapshot.users) == 1199
        assert "old" not in {user.username for user in store.snapshot.users.values()}


async def test_what_cannot_be_taken_leaves_nothing(server_url: str, other: str, clock: Clock) -> None:
    async with opening(other, clock) as store:
        await store.write(lambda tx: tx.insert(User(username="ada")))
        await store.write(lambda tx: tx.insert(User(username="bob")))
        execute(store, f"update users set username = '{'x' * 300}' where username = 'bob'")
    with pytest.raises(Invalid, match="cannot keep a value"):
        move(other, server_url)
    async with opening(server_url, clock) as store:
        assert store.snapshot.revision == 0 and not store.snapshot.users


@pytest.fixture
def empty(url: str) -> Iterator[Database]:
    database = open_database(url)
    yield database
    database.close()


def test_a_database_that_is_not_ours_is_no_source(empty: Database, other: str) -> None:
    with empty.write.begin() as conn:
        conn.exec_driver_sql("create table recipes (id integer)")
    target = open_database(other)
    with pytest.raises(Invalid, match="holds no records of gpustack"):
        transfer(empty, target)
    target.close()


async def test_a_database_of_another_version_is_no_source(url: str, other: str, clock: Clock) -> None:
    async with opening(url, clock) as store:
        execute(store, "update alembic_version set version_num = '0001'")
    with pytest.raises(Invalid, match="has schema 0001"):
        move(url, other)

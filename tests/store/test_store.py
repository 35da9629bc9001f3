from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from gpustack.domain.access import ApiKey, User
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.record import ChangeKind
from gpustack.domain.worker import Worker
from gpustack.errors import AlreadyExists, Conflict, Invalid, NotFound, RevisionExpired, Unavailable
from gpustack.nursery.limiter import use_thread_runner
from gpustack.store import StoreSettings, Tx, open_store
from tests.inline import run_inline

from .conftest import Clock, Opened

SOURCE = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/a.gguf")


def user(name: str) -> User:
    return User(username=name, hashed_password="argon")


def instance(name: str) -> ModelInstance:
    return ModelInstance(name=name, model_id=1, model_name="m", source=SOURCE)


async def test_what_was_written_is_in_the_snapshot_and_on_the_disk(opened: Opened, clock: Clock) -> None:
    async with opened() as store:
        ada = await store.write(lambda tx: tx.insert(user("ada")))
        assert (ada.id, ada.version, ada.created_at, ada.updated_at) == (1, 1, clock.now, clock.now)
        assert store.snapshot.get(User, ada.id) == ada
        clock.forward(seconds=1)
        ada = await store.write(lambda tx: tx.change(User, 1, full_name="Ada L."))
        assert (ada.version, ada.updated_at) == (2, clock.now)
        assert ada.created_at is not None and ada.created_at < clock.now
        before = store.snapshot
    async with opened() as store:
        assert store.snapshot == before
        assert store.snapshot.revision == 2


async def test_an_old_snapshot_never_changes(opened: Opened) -> None:
    async with opened() as store:
        await store.write(lambda tx: tx.insert(user("ada")))
        old = store.snapshot
        await store.write(lambda tx: tx.insert(user("bob")))
        await store.write(lambda tx: tx.delete(User, 1))
        assert [u.username for u in old.users.values()] == ["ada"]
        assert [u.username for u in store.snapshot.users.values()] == ["bob"]


async def test_an_id_is_never_given_again(opened: Opened) -> None:
    async with opened() as store:
        await store.write(lambda tx: tx.insert(user("ada")))
        await store.write(lambda tx: tx.delete(User, 1))
    async with opened() as store:
        assert (await store.write(lambda tx: tx.insert(user("bob")))).id == 2


async def test_a_stale_writer_is_refused(opened: Opened) -> None:
    async with opened() as store:
        old = await store.write(lambda tx: tx.insert(user("ada")))
        await store.write(lambda tx: tx.update(attrs.evolve(old, full_name="first")))
        with pytest.raises(Conflict, match="The user 1 was changed by somebody else"):
            await store.write(lambda tx: tx.update(attrs.evolve(old, full_name="second")))
        with pytest.raises(Conflict):
            await store.write(lambda tx: tx.delete(old))
        assert store.snapshot.users[1].full_name == "first"


async def test_of_many_that_increment_what_they_read_none_is_lost(opened: Opened) -> None:
    """Compare-and-set under contention: every task retries until its own step is in."""
    async with opened() as store:
        await store.write(lambda tx: tx.insert(Worker(name="w", worker_uuid="u", port=0)))

        def step(tx: Tx, seen: Worker) -> None:
            tx.update(attrs.evolve(seen, port=seen.port + 1))

        async def increment() -> None:
            while True:
                seen = store.snapshot.workers[1]
                try:
                    await store.write(functools.partial(step, seen=seen))
                except Conflict:
                    continue
                return

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(increment)
        assert store.snapshot.workers[1].port == 20


async def test_writing_what_stands_already_spends_no_revision(opened: Opened, clock: Clock) -> None:
    async with opened() as store:
        ada = await store.write(lambda tx: tx.insert(user("ada")))
        clock.forward(seconds=5)
        assert await store.write(lambda tx: tx.update(ada)) == ada
        assert store.snapshot.revision == 1


async def test_a_taken_name_is_refused_with_a_sentence(opened: Opened) -> None:
    async with opened() as store:
        await store.write(lambda tx: tx.insert(user("ada")))
        with pytest.raises(AlreadyExists, match="A user with username 'ada' exists already"):
            await store.write(lambda tx: tx.insert(user("ada")))
        bob = await store.write(lambda tx: tx.insert(user("bob")))
        with pytest.raises(AlreadyExists):
            await store.write(lambda tx: tx.update(attrs.evolve(bob, username="ada")))
        await store.write(lambda tx: tx.update(attrs.evolve(bob, username="Ada")))
        assert (await store.write(lambda tx: tx.insert(user("bob")))).username == "bob"


async def test_the_sentence_of_a_clash_shows_no_hash(opened: Opened) -> None:
    def key(name: str) -> ApiKey:
        return ApiKey(name=name, user_id=1, access_key="a", secret_hash="s3cret")

    async with opened() as store:
        await store.write(lambda tx: tx.insert(key("one")))
        with pytest.raises(AlreadyExists) as caught:
            await store.write(lambda tx: tx.insert(key("two")))
        assert "s3cret" not in str(caught.value)


async def test_what_does_not_exist_is_not_found(opened: Opened) -> None:
    async with opened() as store:
        for work in (
            lambda tx: tx.change(User, 9, full_name="x"),
            lambda tx: tx.delete(User, 9),
            lambda tx: tx.update(attrs.evolve(user("x"), id=9)),
        ):
            with pytest.raises(NotFound, match="There is no user 9"):
                await store.write(work)


async def test_work_that_raises_leaves_nothing_and_harms_no_other(opened: Opened) -> None:
    """All are in one commit: the failing one is undone alone, and its own error comes to its caller."""
    async with opened() as store:

        def fails(tx: Tx) -> None:
            tx.insert(user("ghost"))
            tx.change(User, 1, full_name="ghost")
            tx.delete(User, 2)
            raise ZeroDivisionError("mine")

        await store.write(
            lambda tx: (tx.insert(user("ada")), tx.insert(user("bob")), tx.insert(user("cleo")))
        )
        raised = []

        async def failing() -> None:
            try:
                await store.write(fails)
            except ZeroDivisionError as error:
                raised.append(error)

        async def writing(name: str) -> None:
            await store.write(lambda tx: tx.insert(user(name)))

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(writing, f"user{number}")
                nursery.start_soon(failing)
        assert len(raised) == 10
        assert any(
            frame.name == "fails" for frame in __import__("traceback").extract_tb(raised[0].__traceback__)
        )
        names = [u.username for u in store.snapshot.users.values()]
        assert sorted(names) == sorted(["ada", "bob", "cleo", *(f"user{n}" for n in range(10))])
        assert list(store.snapshot.users) == sorted(store.snapshot.users)
        assert store.snapshot.users[1].full_name is None
        before = store.snapshot
    async with opened() as store:
        assert store.snapshot == before


async def test_a_transaction_sees_its_own_writes_and_its_snapshot_stays(opened: Opened) -> None:
    def work(tx: Tx) -> tuple[int, int, int]:
        tx.insert(user("ada"))
        first, everyone = tx.snapshot, tx.all(User)
        tx.insert(user("bob"))
        assert tx.find(User, username="bob") is not None
        assert tx.get(User, None) is None
        return len(first.users), len(everyone), len(tx.snapshot.users)

    async with opened() as store:
        assert await store.write(work) == (1, 1, 2)


async def test_a_transaction_kept_by_its_work_writes_no_more(opened: Opened) -> None:
    async with opened() as store:
        tx = await store.write(lambda tx: tx)
        with pytest.raises(RuntimeError, match="over"):
            tx.insert(user("ada"))


async def test_two_hundred_tasks_write_at_once_and_each_sees_its_own(opened: Opened) -> None:
    async with opened() as store:

        async def write(number: int) -> None:
            made = await store.write(lambda tx: tx.insert(user(f"user{number}")))
            assert store.snapshot.get(User, made.id) == made

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(write, number)
        assert len(store.snapshot.users) == 200
        changes = store.changes_since(0)
        assert [change.revision for change in changes] == list(range(1, 201))
        assert [change.record.id for change in changes] == list(range(1, 201))


async def test_a_cancelled_caller_leaves_all_of_its_work_or_nothing(opened: Opened) -> None:
    async with opened() as store:

        def both(number: int, tx: Tx) -> None:
            tx.insert(user(f"a{number}"))
            tx.insert(user(f"b{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(100):

                async def write(number: int = number) -> None:
                    await store.write(lambda tx: both(number, tx))

                nursery.start_soon(write)
            with store.watch({"users"}) as wake:
                await wake.wait()
            nursery.cancel_scope.cancel()
        await store.write(lambda tx: tx.insert(user("last")))
        names = {u.username for u in store.snapshot.users.values()}
        assert "last" in names
        for number in range(100):
            assert (f"a{number}" in names) == (f"b{number}" in names)
        before = store.snapshot
    async with opened() as store:
        assert store.snapshot == before


async def test_what_was_asked_before_the_stop_is_committed(tmp_path: Path, clock: Clock) -> None:
    settings = StoreSettings(data_dir=str(tmp_path))
    store = await open_store(settings, clock)
    done: list[int] = []

    async def write(number: int) -> None:
        done.append((await store.write(lambda tx: tx.insert(user(f"user{number}")))).id)

    async with trio.open_nursery() as writers, trio.open_nursery() as nursery:
        for number in range(50):
            writers.start_soon(write, number)
        await nursery.start(store.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(done) == 50
    with pytest.raises(Unavailable, match="has stopped") as refused:
        await store.write(lambda tx: tx.insert(user("late")))
    assert refused.value.retry_after is not None
    store = await open_store(settings, clock)
    assert len(store.snapshot.users) == 50
    store.close()


async def test_writers_that_wait_for_a_store_that_is_closed_are_told(tmp_path: Path, clock: Clock) -> None:
    store = await open_store(StoreSettings(data_dir=str(tmp_path)), clock)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                with pytest.raises(Unavailable):
                    await store.write(lambda tx: tx.insert(user("ada")))

            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            store.close()


async def test_an_instance_moves_only_as_the_table_of_its_life_allows(opened: Opened, clock: Clock) -> None:
    async with opened() as store:
        made = await store.write(lambda tx: tx.insert(instance("m-1")))
        clock.forward(seconds=1)
        with pytest.raises(
            Conflict, match="'m-1' is pending; the worker may not bring it from there to running"
        ):
            await store.write(lambda tx: tx.move(made, InstanceState.RUNNING, by=Party.WORKER))
        with pytest.raises(Conflict, match="only a move by the party concerned"):
            await store.write(lambda tx: tx.change(ModelInstance, made.id, state=InstanceState.ANALYZING))
        with pytest.raises(Conflict, match="starts as pending"):
            await store.write(
                lambda tx: tx.insert(attrs.evolve(instance("m-2"), state=InstanceState.RUNNING))
            )
        moved = await store.write(
            lambda tx: tx.move(made, InstanceState.ANALYZING, by=Party.SCHEDULER, message="reading", port=1)
        )
        assert (moved.state, moved.state_message, moved.port) == (InstanceState.ANALYZING, "reading", 1)
        assert moved.state_since == clock.now
        clock.forward(seconds=1)
        said = await store.write(lambda tx: tx.change(ModelInstance, moved.id, state_message="still reading"))
        assert said.state_since == moved.state_since
        with pytest.raises(Conflict, match="changed by somebody else"):
            await store.write(lambda tx: tx.move(moved, InstanceState.PENDING, by=Party.SCHEDULER))


async def test_changes_are_told_in_the_order_of_their_revisions(opened: Opened) -> None:
    async with opened() as store:
        ada = await store.write(lambda tx: tx.insert(user("ada")))
        new = await store.write(lambda tx: tx.update(attrs.evolve(ada, full_name="A")))
        await store.write(lambda tx: tx.delete(new))
        heard = store.changes_since(0)
        assert [change.kind for change in heard] == [
            ChangeKind.CREATED,
            ChangeKind.UPDATED,
            ChangeKind.DELETED,
        ]
        assert [change.revision for change in heard] == [1, 2, 3]
        assert [change.before for change in heard] == [None, ada, new]
        assert [change.record for change in heard] == [ada, new, new]
        assert {change.table for change in heard} == {"users"}
        assert store.changes_since(2) == heard[2:]
        assert store.changes_since(3) == []


async def test_a_watch_wakes_for_its_tables_only(opened: Opened) -> None:
    async with opened() as store:
        with store.watch({"workers"}) as workers, store.watch() as anything:
            await store.write(lambda tx: tx.insert(user("ada")))
            assert await anything.wait(at_most=0)
            assert not await workers.wait(at_most=0)
            await store.write(lambda tx: tx.insert(Worker(name="w", worker_uuid="u")))
            assert await workers.wait(at_most=0)


async def test_watchers_resume_over_a_restart(opened: Opened) -> None:
    async with opened() as store:
        for name in ("ada", "bob", "cleo"):
            await store.write(lambda tx, name=name: tx.insert(user(name)))
        before = store.changes_since(1)
    async with opened() as store:
        assert store.changes_since(1) == before
        await store.write(lambda tx: tx.insert(user("dan")))
        assert [change.revision for change in store.changes_since(2)] == [3, 4]
        with pytest.raises(RevisionExpired, match="newer than the present one"):
            store.changes_since(5)


async def test_a_history_is_not_read_from_memory(opened: Opened) -> None:
    from gpustack.domain.usage import ModelUsage

    async with opened() as store:
        with pytest.raises(TypeError, match=r"Store\.query"):
            await store.write(lambda tx: tx.all(ModelUsage))


async def test_a_database_in_memory_serves_as_well(clock: Clock) -> None:
    store = await open_store(StoreSettings(data_dir="unused", url="sqlite://"), clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await store.write(lambda tx: tx.insert(user("ada")))
        from sqlalchemy import text

        count = await store.query(lambda conn: conn.execute(text("select count(*) from users")).scalar())
        assert count == 1
        nursery.cancel_scope.cancel()


async def test_instants_keep_their_microseconds_and_zone(opened: Opened) -> None:
    at = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    async with opened() as store:
        await store.write(lambda tx: tx.insert(attrs.evolve(instance("m-1"), deleted_at=at)))
        with pytest.raises(Exception, match="names no time zone"):
            await store.write(lambda tx: tx.change(ModelInstance, 1, deleted_at=datetime(2026, 1, 1)))
    async with opened() as store:
        assert store.snapshot.instances[1].deleted_at == at


async def test_its_repr_says_what_it_does(opened_file: Opened, tmp_path: Path) -> None:
    async with opened_file() as store:
        await store.write(lambda tx: tx.insert(user("ada")))
        assert repr(store) == f"<Store at {tmp_path}/database.db: revision 1, 0 writes waiting>"
    assert repr(store) == f"<Store at {tmp_path}/database.db: revision 1, stopped>"


async def test_it_runs_without_threads_in_a_simulation(opened: Opened) -> None:
    with use_thread_runner(run_inline):
        async with opened() as store:
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(store.write, lambda tx, n=number: tx.insert(user(f"user{n}")))
            assert len(store.snapshot.users) == 20


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": "x" * 256}, "name has 256 characters, more than the 255 that can be stored"),
        ({"meta": {"n": 1 << 70}}, "meta holds what cannot be stored"),
    ],
)
async def test_what_no_database_keeps_is_refused_alike_by_each(
    opened: Opened, fields: dict[str, Any], why: str
) -> None:
    """By name, before the database sees it; what is written beside it is stored."""
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m.gguf")
    async with opened() as store:
        kept = await store.write(lambda tx: tx.insert(Model(name="m", source=source)))
        for work in (
            lambda tx: tx.insert(Model(**{"name": "other", "source": source, **fields})),
            lambda tx: tx.change(Model, kept.id, **fields),
        ):
            with pytest.raises(Invalid, match=why):
                await store.write(work)
        assert [model.name for model in store.snapshot.models.values()] == ["m"]
        await store.write(lambda tx: tx.change(Model, kept.id, description="café\n"))
        assert store.snapshot.models[kept.id].description == "café\n"

"""Several servers on one database: what one commits the others hear, and nobody works on what is out of date."""

from __future__ import annotations

import functools

import attrs
import orjson
import pytest
import sqlalchemy as sa
import trio

from gpustack.domain.access import ApiKey, User
from gpustack.domain.record import ChangeKind, Record
from gpustack.domain.worker import Worker
from gpustack.errors import AlreadyExists, Conflict, RevisionExpired
from gpustack.store import Store, Tx
from gpustack.store.codec import to_json
from gpustack.store.lease import LeaseLost

from .conftest import Clock, Opened, execute, opening


async def heard(store: Store, revision: int) -> None:
    """Wait until ``store`` knows of ``revision``."""
    with trio.fail_after(20), store.watch() as wake:
        while store.snapshot.revision < revision:
            await wake.wait()


async def test_what_one_server_commits_the_others_hear(server_url: str, clock: Clock) -> None:
    async with opening(server_url, clock) as one, opening(server_url, clock) as two:
        ada = await one.write(lambda tx: tx.insert(User(username="ada")))
        await one.write(lambda tx: tx.change(User, ada.id, full_name="Ada L."))
        await one.write(lambda tx: tx.delete(User, ada.id))
        await heard(two, 3)
        changes = two.changes_since(0)
        assert [change.revision for change in changes] == [1, 2, 3]
        assert [change.kind for change in changes] == [
            ChangeKind.CREATED,
            ChangeKind.UPDATED,
            ChangeKind.DELETED,
        ]
        assert changes == one.changes_since(0)
        assert two.snapshot == one.snapshot


async def test_a_work_sees_what_another_server_committed_a_moment_before(
    server_url: str, clock: Clock
) -> None:
    async with opening(server_url, clock) as one, opening(server_url, clock) as two:
        ada = await one.write(lambda tx: tx.insert(User(username="ada")))
        with pytest.raises(AlreadyExists, match="username 'ada'"):
            await two.write(lambda tx: tx.insert(User(username="ada")))
        await two.write(lambda tx: tx.update(attrs.evolve(ada, full_name="by two")))
        with pytest.raises(Conflict, match="changed by somebody else"):
            await one.write(lambda tx: tx.update(attrs.evolve(ada, full_name="by one")))
        assert one.snapshot.users[ada.id].full_name == "by two"
        assert one.snapshot == two.snapshot


async def test_servers_that_all_write_lose_nothing_and_agree(server_url: str, clock: Clock) -> None:
    """Increments under contention, and every revision once and in order on each."""

    def step(tx: Tx, seen: Worker) -> None:
        tx.update(attrs.evolve(seen, port=seen.port + 1))

    async def increment(store: Store) -> None:
        while True:
            try:
                await store.write(functools.partial(step, seen=store.snapshot.workers[1]))
            except Conflict:
                continue
            return

    async with (
        opening(server_url, clock) as one,
        opening(server_url, clock) as two,
        opening(server_url, clock) as three,
    ):
        stores = (one, two, three)
        await one.write(lambda tx: tx.insert(Worker(name="w", worker_uuid="u", port=0)))
        for store in stores:
            await heard(store, 1)
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(increment, stores[number % 3])
        for store in stores:
            await heard(store, 31)
            assert store.snapshot == one.snapshot
            assert store.snapshot.workers[1].port == 30
            assert [change.revision for change in store.changes_since(0)] == list(range(1, 32))
    async with opening(server_url, clock) as store:
        assert store.snapshot.workers[1].port == 30


async def test_a_server_that_missed_too_much_begins_afresh(server_url: str, clock: Clock) -> None:
    async with opening(server_url, clock) as one, opening(server_url, clock) as two:
        await one.write(lambda tx: [tx.insert(User(username=name)) for name in ("ada", "bob")])
        await heard(two, 2)
        with two.watch({"users"}) as users, two.watch({"models"}) as models:
            # All in one transaction, so that two cannot look in between.
            with one._database.write.begin() as conn:
                conn.exec_driver_sql("delete from changes")
                conn.exec_driver_sql("delete from users where username = 'ada'")
                conn.exec_driver_sql("update users set full_name = 'Bob', version = 2")
                conn.exec_driver_sql("update heads set revision = 900")
            with trio.fail_after(20):
                assert await users.wait()
            assert not await models.wait(at_most=0)
        assert two.snapshot.revision == 900
        assert [user.full_name for user in two.snapshot.users.values()] == ["Bob"]
        with pytest.raises(RevisionExpired):
            two.changes_since(2)
        await two.write(lambda tx: tx.insert(User(username="ada")))
        await heard(one, 901)
        assert one.snapshot == two.snapshot


async def test_changes_of_a_newer_program_are_passed_over(server_url: str, clock: Clock) -> None:
    async with opening(server_url, clock) as store:
        execute(
            store,
            "insert into changes (revision, at, kind, table_name, record_id, record)"
            " values (1, '2026-01-01', 'created', 'spaceships', 1, '{}')",
        )
        execute(store, "update heads set revision = 1")
        await heard(store, 1)
        await store.write(lambda tx: tx.insert(User(username="ada")))
        assert [change.table for change in store.changes_since(0)] == ["users"]


@pytest.mark.attack("access")
async def test_what_an_older_program_does_not_know_stays_as_it_is(
    server_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a rolling upgrade: a key that is shut off and limited must not be open to the newer servers."""

    def older(record: Record) -> str:
        document = orjson.loads(to_json(record))
        for name in ("is_enabled", "allowed_models", "limits"):
            del document[name]
        return orjson.dumps(document).decode()

    async with opening(server_url, clock) as old, opening(server_url, clock) as new:
        made = ApiKey(
            name="k", user_id=1, access_key="a", secret_hash="h", is_enabled=False, allowed_models=("m",)
        )
        key = await old.write(lambda tx: tx.insert(made))
        await heard(new, 1)
        monkeypatch.setattr("gpustack.store.transaction.to_json", older)
        await old.write(lambda tx: tx.change(ApiKey, key.id, description="older"))
        await heard(new, 2)
        held = new.snapshot.api_keys[key.id]
        assert (held.description, held.is_enabled, held.allowed_models) == ("older", False, ("m",))
        with pytest.raises(RevisionExpired):
            new.changes_since(1)
    async with opening(server_url, clock) as new:
        assert new.snapshot.api_keys[key.id] == held
        with pytest.raises(RevisionExpired):
            new.changes_since(1)


async def test_a_lease_has_one_holder_and_its_terms_grow(opened: Opened) -> None:
    async with opened() as store:
        first = await store.try_lease("leader", "a", 600)
        assert first is not None and first.number == 1
        assert await store.try_lease("leader", "b", 600) is None
        assert await store.try_lease("leader", "a", 600) == first
        other = await store.try_lease("something else", "b", 600)
        assert other is not None and other.number == 1
        await store.end_lease(first, "b")
        assert await store.try_lease("leader", "b", 600) is None
        await store.end_lease(first, "a")
        second = await store.try_lease("leader", "b", 600)
        assert second is not None and second.number == 2
        assert await store.try_lease("leader", "a", 600) is None
        await store.end_lease(first, "a")  # that term is over: it ends nothing
        assert await store.try_lease("leader", "b", 600) == second


async def test_a_lease_that_runs_out_goes_to_the_next_and_comes_back_with_a_new_term(opened: Opened) -> None:
    async with opened() as store:
        assert await store.try_lease("leader", "a", 600) is not None
        execute(store, "update leases set expires = 1")
        back = await store.try_lease("leader", "a", 600)
        assert back is not None and back.number == 2, "a gap is a new term, also for the same holder"
        execute(store, "update leases set expires = 1")
        taken = await store.try_lease("leader", "b", 0.001)
        assert taken is not None and taken.number == 3
        with trio.fail_after(10):
            while (again := await store.try_lease("leader", "c", 600)) is None:
                pass
        assert again.number == 4


async def test_of_many_that_want_a_new_lease_one_gets_it(server_url: str, clock: Clock) -> None:
    async with opening(server_url, clock) as one, opening(server_url, clock) as two:
        terms = []

        async def want(store: Store, holder: str) -> None:
            terms.append(await store.try_lease("leader", holder, 600))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(want, (one, two)[number % 2], f"n{number}")
        assert sorted(term.number for term in terms if term is not None) == [1]


async def test_a_write_of_a_term_that_is_over_is_refused(opened: Opened) -> None:
    async with opened() as store:
        first = await store.try_lease("leader", "a", 600)
        await store.write(lambda tx: tx.insert(User(username="ada")), term=first)
        execute(store, "update leases set expires = 1")
        await store.write(lambda tx: tx.insert(User(username="bob")), term=first)  # nobody else leads yet
        second = await store.try_lease("leader", "b", 600)
        with pytest.raises(LeaseLost, match="term 1 is over"):
            await store.write(lambda tx: tx.insert(User(username="cleo")), term=first)
        await store.write(lambda tx: tx.insert(User(username="dan")), term=second)
        assert [user.username for user in store.snapshot.users.values()] == ["ada", "bob", "dan"]


async def test_nobody_takes_a_lease_over_while_a_write_of_its_term_is_under_way(
    server_url: str, clock: Clock
) -> None:
    async with opening(server_url, clock) as one, opening(server_url, clock) as two:
        first = await one.try_lease("leader", "a", 600)
        execute(one, "update leases set expires = 1")
        order = []

        def slow(tx: Tx) -> None:
            trio.from_thread.run_sync(begun.set)
            trio.from_thread.run(asked.wait)
            # The other one waits for us now, or will: it cannot have the lease before we are done.
            count = tx._begin_writing().execute(sa.text("select term from leases")).scalar()
            order.append(("write", count))

        async def write() -> None:
            await one.write(slow, term=first)

        async def take() -> None:
            await begun.wait()
            asked.set()
            taken = await two.try_lease("leader", "b", 600)
            assert taken is not None
            order.append(("taken", taken.number))

        begun, asked = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(take)
        assert order == [("write", 1), ("taken", 2)]

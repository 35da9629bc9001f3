"""Servers on one database know of each other, agree on their secrets, and hear whom the others heard."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.domain.access import User
from gpustack.errors import Invalid
from gpustack.store import Store, server_registry
from gpustack.store.database import open_database
from gpustack.store.lease import LEADER
from gpustack.store.server_registry import RegistryView, SecretProposal, ServerIdentity
from gpustack.store.transfer import refuse_served, transfer

from .conftest import Clock, Opened, execute, opening

ONE = ServerIdentity(uuid="1", run="r1", url="http://one:80", version="0.1")
TWO = ServerIdentity(uuid="2", run="r2", url="http://two:80", version="0.2")


async def settle(store: Store, me: ServerIdentity, value: str, knob: str | None = None) -> Mapping[str, str]:
    return await store.beside(
        partial(server_registry.register, me=me, proposals={"token": SecretProposal(value=value, knob=knob)})
    )


async def attend(
    store: Store,
    me: ServerIdentity,
    heard: Mapping[int, float] | None = None,
    settled: Mapping[str, str] | None = None,
) -> RegistryView:
    return await store.beside(
        partial(server_registry.heartbeat, me=me, heard=heard or {}, settled=settled or {})
    )


async def depart(store: Store, me: ServerIdentity) -> None:
    await store.beside(partial(server_registry.deregister, me=me))


async def test_the_secret_of_the_first_is_that_of_all(opened: Opened) -> None:
    async with opened() as store:
        assert await settle(store, ONE, "first") == {"token": "first"}
        assert await settle(store, TWO, "second") == {"token": "first"}
        assert await settle(store, TWO, "first", "--token") == {"token": "first"}
    async with opened() as store:
        assert await settle(store, ONE, "third") == {"token": "first"}
        assert not store.snapshot.revision, "no change tells of secrets"


async def test_one_that_is_set_replaces_it_only_while_no_other_lives(opened: Opened) -> None:
    async with opened() as store:
        await settle(store, ONE, "first")
        assert await settle(store, ONE, "mine", "--token") == {"token": "mine"}, "it is alone"
        with pytest.raises(Invalid, match=r"--token differs .* http://one:80 runs: leave it out"):
            await settle(store, TWO, "other", "--token")
        assert await settle(store, TWO, "ignored") == {"token": "mine"}
        await depart(store, ONE)
        assert await settle(store, TWO, "other", "--token") == {"token": "other"}
        assert (await attend(store, TWO, settled={"token": "other"})).agreed
        late = await attend(store, ONE, settled={"token": "mine"})
        assert not late.agreed, "one that stood still meanwhile learns of it"


async def test_one_that_was_killed_counts_as_gone_after_a_while(opened: Opened) -> None:
    async with opened() as store:
        await settle(store, ONE, "first")
        execute(store, f"update servers set seen = seen - {round(server_registry.LIVE_FOR * 1000)}")
        assert await settle(store, TWO, "other", "--token") == {"token": "other"}
        found = {server.uuid: server.lives for server in (await attend(store, TWO)).servers}
        assert found == {"1": False, "2": True}


async def test_of_many_that_start_at_once_one_secret_holds(server_url: str, clock: Clock) -> None:
    async with opening(server_url, clock) as one, opening(server_url, clock) as two:
        found = set()

        async def start(number: int) -> None:
            me = attrs.evolve(ONE, uuid=str(number))
            found.add((await settle((one, two)[number % 2], me, f"secret-{number}"))["token"])

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(start, number)
        assert len(found) == 1


async def test_servers_see_each_other_and_who_leads(opened: Opened) -> None:
    async with opened() as store:
        await attend(store, ONE)
        view = await attend(store, TWO)
        assert [(s.uuid, s.url, s.version, s.lives, s.leads) for s in view.servers] == [
            ("1", "http://one:80", "0.1", True, False),
            ("2", "http://two:80", "0.2", True, False),
        ]
        assert view.term is None
        assert await store.try_lease(LEADER, TWO.holder, 600) is not None
        view = await attend(store, attrs.evolve(ONE, url="http://moved:80"))
        assert [(s.url, s.leads) for s in view.servers] == [
            ("http://moved:80", False),
            ("http://two:80", True),
        ]
        assert view.term == 1
        await depart(store, attrs.evolve(TWO, run="before"))
        assert len((await attend(store, ONE)).servers) == 2, "a former run takes the present one off nothing"
        await depart(store, TWO)
        assert [s.uuid for s in (await attend(store, ONE)).servers] == ["1"]


async def test_a_copy_of_a_data_directory_does_not_lead_with_the_original(opened: Opened) -> None:
    async with opened() as store:
        copied = attrs.evolve(ONE, run="elsewhere")
        assert await store.try_lease(LEADER, ONE.holder, 600) is not None
        assert await store.try_lease(LEADER, copied.holder, 600) is None


async def test_a_copy_of_a_data_directory_is_told_to_both(opened: Opened) -> None:
    copy = attrs.evolve(ONE, run="r9", url="http://copy:80")
    async with opened() as store:
        await settle(store, ONE, "first")
        assert (await attend(store, ONE)).other_copy is None
        await settle(store, copy, "first")
        assert (await attend(store, ONE)).other_copy == "http://copy:80"
        assert (await attend(store, copy)).other_copy == "http://one:80"
        assert (await attend(store, copy)).other_copy is None
        assert (await attend(store, TWO)).other_copy is None


async def test_one_that_is_started_anew_is_no_copy(opened: Opened) -> None:
    after = attrs.evolve(ONE, run="r9")
    async with opened() as store:
        await settle(store, ONE, "first")
        await settle(store, after, "first")
        assert (await attend(store, after)).other_copy is None
        await depart(store, after)
        assert (await attend(store, after)).other_copy is None


async def test_what_one_heard_of_workers_the_others_hear(opened: Opened) -> None:
    async with opened() as store:
        await attend(store, ONE, {1: 0.0, 2: 20.0, 3: 500.0})
        heard = (await attend(store, TWO, {4: 0.0})).heard
        assert heard.keys() == {1, 2, 4}, "what is too old is of no use"
        assert heard[1] < 15 and 20 <= heard[2] < 35
        await attend(store, ONE, {2: 0.0})
        assert (await attend(store, TWO)).heard[2] < 15


@pytest.fixture
def other(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/other.db"


def move(source: str, target: str, *, replace: bool = False) -> None:
    one, two = open_database(source), open_database(target)
    try:
        transfer(one, two, replace=replace)
    finally:
        one.close()
        two.close()


async def test_secrets_go_with_the_records_between_databases_that_servers_share(
    server_url: str, other: str, clock: Clock, server: object
) -> None:
    async with opening(server_url, clock) as store:
        await settle(store, ONE, "shared")
        await depart(store, ONE)
        await store.write(lambda tx: tx.insert(User(username="ada")))
    move(server_url, other)
    async with opening(other, clock) as store:
        assert await settle(store, ONE, "of the directory") == {"token": "of the directory"}, "its files hold"
        await depart(store, ONE)
    second = server.create()  # type: ignore[attr-defined]
    try:
        move(server_url, second)
        async with opening(second, clock) as store:
            assert await settle(store, ONE, "own") == {"token": "shared"}
            await depart(store, ONE)
        move(other, second, replace=True)
        async with opening(second, clock) as store:
            assert await settle(store, ONE, "restored") == {"token": "restored"}
    finally:
        server.drop(second)  # type: ignore[attr-defined]


async def test_what_servers_work_on_is_neither_moved_nor_replaced(
    server_url: str, other: str, clock: Clock
) -> None:
    async with opening(other, clock) as store:
        await store.write(lambda tx: tx.insert(User(username="ada")))
    async with opening(server_url, clock) as store:
        await attend(store, ONE)
        with pytest.raises(Invalid, match=r"Servers run on .*\(http://one:80\): stop them first"):
            move(other, server_url, replace=True)
        database = open_database(server_url)
        with pytest.raises(Invalid, match="stop them first"):
            refuse_served(database)
        await depart(store, ONE)
        refuse_served(database)
        database.close()
        move(other, server_url, replace=True)


async def test_who_was_just_told_something_need_not_wait_for_the_next_look(
    server_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpustack.store.store.POLL_SECONDS", 600.0)
    async with opening(server_url, clock) as one, opening(server_url, clock) as two:
        for number in range(3):
            ada = await one.write(lambda tx, number=number: tx.insert(User(username=f"ada{number}")))
            assert ada.id not in two.snapshot.users
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(two.refresh)
            assert ada.id in two.snapshot.users
        assert await two.refresh()


async def test_a_file_of_its_own_is_never_asked_for_news(opened_file: Opened) -> None:
    async with opened_file() as store:
        assert not await store.refresh()

"""The database goes away and comes back: reading goes on, nothing acknowledged is lost, nobody restarts."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.lowlevel

from gpustack.domain.access import User
from gpustack.errors import Unavailable
from gpustack.store import Store
from tests.databases import Server

from .conftest import Clock, opening
from .proxy import proxy


async def written(store: Store, name: str) -> User:
    """Write until it is acknowledged, as a client does that is told to try again."""
    with trio.fail_after(50):
        while True:
            try:
                return await store.write(lambda tx: tx.insert(User(username=name)))
            except Unavailable as error:
                assert error.retry_after is not None
                await trio.sleep(0.02)


async def test_reading_goes_on_and_writing_resumes_when_it_is_back(
    server: Server, server_url: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gpustack.store")
    async with opening(server_url, clock) as store, opening(server_url, clock) as other:
        await written(store, "ada")
        await trio.to_thread.run_sync(server.stop)
        try:
            for _ in range(3):
                with pytest.raises(Unavailable, match="cannot be reached") as caught:
                    await store.write(lambda tx: tx.insert(User(username="bob")))
                assert caught.value.retry_after is not None
            assert [user.username for user in store.snapshot.users.values()] == ["ada"]
            assert store.changes_since(0)[0].record == store.snapshot.users[1]
            with pytest.raises(Unavailable):
                await store.query(lambda conn: None)
            with pytest.raises(Unavailable):
                await store.try_lease("leader", "a", 10)
            assert store.failure is not None
        finally:
            await trio.to_thread.run_sync(server.start)
        await written(store, "cleo")
        assert store.failure is None
        assert await store.query(lambda conn: 1) == 1
        with trio.fail_after(20), other.watch({"users"}) as wake:
            while len(other.snapshot.users) < 2:  # it wrote nothing itself, and hears all the same
                await wake.wait()
        assert other.snapshot == store.snapshot
    said = [record.message for record in caplog.records if record.levelno >= logging.INFO]
    assert sum("The database fails" in line for line in said) <= 4, "told once, not at every attempt"
    assert any("The database is back" in line for line in said)


async def test_what_was_acknowledged_is_there_however_often_connections_break(
    server: Server, server_url: str, clock: Clock
) -> None:
    """Cut at any moment, also in that of the commit: memory and database agree afterwards."""
    name = server_url.rpartition("/")[2]
    acknowledged: list[User] = []
    with proxy(server.port) as between:
        async with opening(server.url(name, port=between.port), clock) as store:

            async def write(task: int) -> None:
                for number in range(20):
                    username = f"{task}-{number}"
                    try:
                        acknowledged.append(
                            await store.write(lambda tx, n=username: tx.insert(User(username=n)))
                        )
                    except Unavailable:
                        await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                for task in range(8):
                    nursery.start_soon(write, task)
            last = await written(store, "last")
            snapshot = store.snapshot
            assert [change.revision for change in store.changes_since(0)] == list(
                range(1, snapshot.revision + 1)
            )
    async with opening(server_url, clock) as store:
        assert store.snapshot == snapshot
        for user in (*acknowledged, last):
            assert store.snapshot.users[user.id] == user
        assert len({user.username for user in store.snapshot.users.values()}) == len(store.snapshot.users)

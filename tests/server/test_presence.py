"""Servers on one database hear of each other, and of each other's workers; one that is out of date says so."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from gpustack.domain.worker import Worker
from gpustack.server import presence
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.presence import SecretsReplaced, ServerPresence, settle
from gpustack.store import Store, StoreSettings, open_store, server_registry
from gpustack.store.server_registry import SecretProposal, ServerIdentity
from tests.databases import Server

from .cluster import PATIENCE, Clock


@pytest.fixture(params=["postgresql", "mysql"])
def url(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Iterator[str]:
    server = servers(request.param)
    made = server.create()
    yield made
    server.drop(made)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "SPEAK_EVERY", 0.05)


@attrs.define
class Node:
    """A server as far as it is there."""

    store: Store
    heartbeats: HeartbeatTimes
    presence: ServerPresence
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            await self.presence.run(task_status=task_status)

    @property
    def seen(self) -> list[str]:
        return sorted(self.presence.urls)


@asynccontextmanager
async def node(url: str, name: str, token: str = "t") -> AsyncIterator[Node]:
    store = await open_store(StoreSettings(data_dir="unused", url=url), Clock())
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        me = ServerIdentity(uuid=name, run="1", url="http://before", version="1")
        secrets = await settle(store, me, {"token": SecretProposal(value=token)})
        heartbeats = HeartbeatTimes(trio.current_time)
        made = Node(
            store, heartbeats, ServerPresence(store, heartbeats, me, secrets, lambda: f"http://{name}")
        )
        async with trio.open_nursery() as inner:
            await inner.start(lambda task_status: made.run(task_status=task_status))
            with trio.fail_after(PATIENCE):
                yield made
            inner.cancel_scope.cancel()  # it takes its leave while there is a store
        nursery.cancel_scope.cancel()


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110
        await trio.sleep(0.02)


async def test_they_hear_of_each_other_and_of_workers_and_miss_who_stops(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with node(url, "one") as one, node(url, "two") as two:
        both = ["http://one", "http://two"]
        await until(lambda: one.seen == two.seen == both)
        worker = await one.store.write(lambda tx: tx.insert(Worker(name="w", worker_uuid="u")))
        one.heartbeats.of([worker.id])
        assert two.heartbeats.last_heard(worker.id) is None
        one.heartbeats.heard(worker.id)
        await until(lambda: two.heartbeats.last_heard(worker.id) is not None)
        heard = two.heartbeats.last_heard(worker.id)
        assert heard is not None and abs(heard - trio.current_time()) < PATIENCE
        one.scope.cancel()
        await until(lambda: two.seen == ["http://two"])
        assert repr(two.presence) == "<ServerPresence: 1 servers>"
    assert caplog.text.count("Another server is there") == 2
    assert "Another server is gone: url=http://one" in caplog.text


async def test_a_database_that_is_away_is_survived_and_who_was_heard_is_told_later(
    servers: Callable[[str], Server],
) -> None:
    server = servers("postgresql")
    url = server.create()
    async with node(url, "one") as one, node(url, "two") as two:
        await until(lambda: len(one.seen) == len(two.seen) == 2)
        worker = await one.store.write(lambda tx: tx.insert(Worker(name="w", worker_uuid="u")))
        await until(lambda: worker.id in two.store.snapshot.workers)
        server.stop()
        try:
            one.heartbeats.of([worker.id])
            one.heartbeats.heard(worker.id)
            await until(lambda: one.store.failure and two.store.failure)
            assert len(one.seen) == 2, "what was known is known still"
        finally:
            server.start()
        await until(lambda: two.heartbeats.last_heard(worker.id) is not None)


async def test_one_whose_secrets_were_replaced_meanwhile_ends(url: str) -> None:
    with pytest.RaisesGroup(
        pytest.RaisesExc(SecretsReplaced, match="start this server again"), flatten_subgroups=True
    ):
        async with node(url, "one") as one:
            other = ServerIdentity(uuid="two", run="1", url="http://two", version="1")
            await one.store.beside(lambda conn, _: conn.exec_driver_sql("update servers set seen = 0"))
            with trio.move_on_after(5):
                while True:
                    try:
                        await settle(one.store, other, {"token": SecretProposal(value="new", knob="--token")})
                        break
                    except presence.GpustackError:  # it has just spoken
                        await one.store.beside(
                            lambda conn, _: conn.exec_driver_sql("update servers set seen = 0")
                        )
            await trio.sleep_forever()


async def test_a_worker_of_whom_nothing_can_be_told_is_left_out(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told of all the same, and the server goes on saying that it is there."""
    whole, refused = server_registry.heartbeat, set[int]()

    def attend(conn: Any, dialect: Any, me: Any, heard: Any, settled: Any) -> Any:
        if refused & heard.keys():
            raise ArithmeticError("stumbled")
        return whole(conn, dialect, me, heard, settled)

    monkeypatch.setattr(server_registry, "heartbeat", attend)
    async with node(url, "one") as one, node(url, "two") as two:
        await until(lambda: len(one.seen) == len(two.seen) == 2)
        ids = []
        for name in ("a", "b"):
            made = Worker(name=name, worker_uuid=name)
            ids.append((await one.store.write(lambda tx, made=made: tx.insert(made))).id)
        refused.add(ids[0])
        await until(lambda: set(ids) <= set(two.store.snapshot.workers))
        one.heartbeats.of(ids)
        for worker_id in ids:
            one.heartbeats.heard(worker_id)
        await until(lambda: two.heartbeats.last_heard(ids[1]) is not None)
        assert two.heartbeats.last_heard(ids[0]) is None
        assert one.seen == two.seen == ["http://one", "http://two"]

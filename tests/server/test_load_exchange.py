"""Loads that a worker reports to one server are known to the others, unless they know newer ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from gpustack.domain.load import load_of
from gpustack.metrics.traffic import ModelTraffic
from gpustack.server import load_exchange
from gpustack.server.live_status import LiveStatus
from gpustack.server.load_exchange import LoadExchange
from gpustack.server.model_rates import ModelRates
from gpustack.store import Store, StoreSettings, open_store
from tests.databases import Server
from tests.domain.test_load import STATUS, other_load

from .cluster import PATIENCE, Clock

LOAD, BUSY = load_of(STATUS), load_of(other_load(STATUS))


@attrs.define
class Node:
    store: Store
    live: LiveStatus
    rates: ModelRates
    others: int = 1


@asynccontextmanager
async def node(url: str, name: str) -> AsyncIterator[Node]:
    store = await open_store(StoreSettings(data_dir="unused", url=url), Clock())
    made = Node(store, LiveStatus(trio.current_time), ModelRates(trio.current_time, Clock(), lambda: {3}))
    exchange = LoadExchange(store, made.live, made.rates, name, lambda: made.others == 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await nursery.start(lambda task_status: exchange.run(task_status=task_status))
        with trio.fail_after(PATIENCE):
            yield made
        nursery.cancel_scope.cancel()


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110
        await trio.sleep(0.02)


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
async def test_two_servers_know_each_others_loads(
    kind: str, servers: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_exchange, "EXCHANGE_EVERY", 0.05)
    server = servers(kind)
    url = server.create()
    async with node(url, "one") as one, node(url, "two") as two:
        revision = one.store.snapshot.revision
        one.live.reported(7, LOAD)
        two.live.reported(8, BUSY)
        await until(lambda: one.live.of(8) and two.live.of(7))
        assert (one.live.of(8), two.live.of(7)) == (BUSY, LOAD)
        for answers in (1, 2):
            two.rates.counted = lambda answers=answers: {3: ModelTraffic(answers=answers)}
            two.rates.sample()
        await until(lambda: one.rates.of(3).used_at)
        two.live.reported(7, BUSY)  # the worker turned to the other server
        await until(lambda: one.live.of(7) == BUSY)
        assert one.live.own().keys() == set()
        assert two.live.of(7) == BUSY, "what is older is not taken"
        assert one.store.snapshot.revision == revision, "no record was written"
        one.others = 0
        await trio.sleep(0.2)
        one.live.reported(9, LOAD)
        await trio.sleep(0.3)
        assert two.live.of(9) is None, "a server that is alone tells nobody"
    server.drop(url)


def test_what_was_told_longer_ago_is_left_and_who_was_deleted_is_forgotten() -> None:
    now = 100.0
    live = LiveStatus(lambda: now)
    live.reported(1, LOAD)
    assert live.changed_since(0) == {1: 1}
    live.reported_elsewhere(1, BUSY, 5.0)
    assert live.of(1) == LOAD
    now = 110.0
    live.reported(1, LOAD)
    assert live.changed_since(1) == {}, "the same again is no change"
    live.reported_elsewhere(1, BUSY, -1.0)
    assert (live.of(1), live.own(), live.changed_since(1)) == (BUSY, {}, {1: 2})
    live.reported_elsewhere(2, BUSY, 1.0)
    assert repr(live) == "<LiveStatus: the loads of 2 workers, 0 reported here>"
    live.keep_only({2})
    assert (live.of(1), live.of(2)) == (None, BUSY)

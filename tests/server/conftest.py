"""A cluster's records in a real store on disk, running for the length of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import Reactor, new_reactor
from gpustack.server.facts import FactsCache
from tests.fresh_store import open_fresh

from .cluster import Clock, Cluster, Settled


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    clock = Clock()
    store = await open_fresh(tmp_path, clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield Cluster(store=store, clock=clock)
        nursery.cancel_scope.cancel()


@pytest.fixture
def settled(cluster: Cluster) -> Settled:
    return Settled(cluster)


@pytest.fixture
async def facts(cluster: Cluster, nursery: trio.Nursery) -> FactsCache:
    source = cluster.facts()
    await nursery.start(lambda task_status: source.run(task_status=task_status))
    return source


@pytest.fixture
async def reactor(nursery: trio.Nursery) -> Reactor:
    reactor = new_reactor(tick=0.05)
    await nursery.start(reactor.run)
    return reactor


@pytest.fixture
async def pool(reactor: Reactor, nursery: trio.Nursery) -> ConnectionPool:
    pool = ConnectionPool(reactor=reactor)
    await nursery.start(pool.run)
    return pool

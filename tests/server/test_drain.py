"""A drain that is asked about beforehand does what was said."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from gpustack.domain.instance import Claim
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Worker
from gpustack.errors import NotFound
from gpustack.policy.drain_plan import DrainWay
from gpustack.server.drain import begin_drain, plan_drain
from gpustack.server.report import worker_drains

from .cluster import Cluster, Settled
from .test_preemption import deployed, ended, loops, needs, occupied, replicas

__all__ = ["loops"]


async def drained(cluster: Cluster, settled: Settled, worker: Worker) -> None:
    """Drain it, with engines that start and end at once."""
    await cluster.store.write(lambda tx: begin_drain(tx, worker.id, cordoned=True))
    for _ in range(20):
        await settled()
        for one in cluster.snapshot.instances.values():
            if one.deleted_at is not None and one.worker_id is not None:
                await ended(cluster, one)
                break
            if one.state is S.SCHEDULED:
                await cluster.move(one, S.RUNNING)
                break
        else:
            return


async def test_a_drain_does_what_its_plan_says(
    cluster: Cluster, settled: Settled, loops: None, facts: Any
) -> None:
    worker = await cluster.worker("a", ram=40)
    await cluster.worker("b", ram=12)
    await cluster.worker("c", ram=8)
    plain = await deployed(cluster, "plain", 4, replicas=2)
    weighty = await deployed(cluster, "weighty", 20)
    for _ in range(2):
        await occupied(cluster, plain, worker, 4)
    large = await occupied(cluster, weighty, worker, 20)
    await settled()
    before = cluster.snapshot.revision
    outlook = await plan_drain(cluster.store, facts, [worker.id])
    assert cluster.snapshot.revision == before, "nothing is written"
    ways = {step.instance: step.way for step in outlook.steps}
    assert sorted(ways.values()) == [DrainWay.REPLACED_FIRST, DrainWay.REPLACED_FIRST, DrainWay.STAYS]
    assert ways[large.name] is DrainWay.STAYS
    assert "short by" in outlook.steps[-1].why
    await drained(cluster, settled, worker)
    names = {one.id: one.name for one in cluster.snapshot.workers.values()}
    assert sorted(names[one.worker_id or 0] for one in replicas(cluster, plain)) == sorted(
        step.worker or "" for step in outlook.steps if step.model == "plain"
    )
    assert [one.name for one in cluster.snapshot.instances.values() if one.worker_id == worker.id] == [
        large.name
    ]


async def test_a_drain_that_has_others_end_says_so_and_does_so(
    cluster: Cluster, settled: Settled, loops: None, facts: Any
) -> None:
    worker, other = await cluster.worker("a", ram=12), await cluster.worker("b", ram=12)
    low = await deployed(cluster, "low", 8)
    high = await deployed(cluster, "high", 8, priority=7, preempts=True)
    victim = await occupied(cluster, low, other, 8)
    await occupied(cluster, high, worker, 8)
    await settled()
    (step,) = (await plan_drain(cluster.store, facts, [worker.id])).steps
    assert (step.way, step.worker, step.ends) == (DrainWay.REPLACED_FIRST, "b", (victim.name,))
    await drained(cluster, settled, worker)
    assert [one.worker_id for one in replicas(cluster, high)] == [other.id]
    assert [one.placement for one in replicas(cluster, low)] == [None]


async def test_a_header_that_is_not_read_yet_is_said_to_be_missing(
    cluster: Cluster, facts: Any, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.readers.gate = trio.Event()
    worker = await cluster.worker("a", ram=12)
    await cluster.instance(await cluster.model("m", env=needs(1)), on=worker, claim=Claim(ram=GIB))
    (step,) = (await plan_drain(cluster.store, facts, [worker.id])).steps
    assert (step.way, step.why.endswith("is being read; ask again in a moment")) == (DrainWay.STAYS, True)


async def test_how_much_there_was_is_counted_once(cluster: Cluster) -> None:
    worker = await cluster.worker("a", ram=40)
    of = await deployed(cluster, "m", 4, replicas=2)
    first = await occupied(cluster, of, worker, 4)
    await occupied(cluster, of, worker, 4)
    await worker_drains(cluster.store, worker.id)
    assert cluster.now(worker).drain_total == 2
    await cluster.change(first, deleted_at=cluster.clock.now)
    await cluster.store.write(lambda tx: begin_drain(tx, worker.id, cordoned=True))
    assert (cluster.now(worker).drain_total, cluster.now(worker).cordoned) == (2, True)
    with pytest.raises(NotFound):
        await worker_drains(cluster.store, 99)

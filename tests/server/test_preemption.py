"""Instances of lower priority make room for one that may ask for it; nobody else gets the place meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio

from gpustack.domain.instance import Claim, ModelInstance
from gpustack.domain.lifecycle import REPLACE
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.model import Model
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Worker
from gpustack.server import deployment
from gpustack.server.facts import FactsCache
from gpustack.server.lifecycle import give_up_place
from gpustack.server.reconciler import ReplicaReconciler
from gpustack.server.report import InstanceReport, report_instance
from gpustack.server.scheduler import Scheduler

from .cluster import Cluster, Settled

Start = Callable[[], Any]


@pytest.fixture
async def loops(cluster: Cluster, nursery: trio.Nursery, facts: FactsCache) -> None:
    for service in (Scheduler(cluster.store, facts), ReplicaReconciler(cluster.store, random.Random(3))):
        await nursery.start(lambda task_status, s=service: s.run(task_status=task_status))


def needs(gib: float) -> dict[str, str]:
    return {"GPUSTACK_MODEL_RAM_CLAIM": str(int(gib * GIB))}


async def deployed(cluster: Cluster, name: str, gib: float, **more: Any) -> Model:
    """A command that claims memory of the host and nothing else."""
    fields = {"backend": "custom", "command": "serve --port {port}", "env": needs(gib), **more}
    return await cluster.model(name, **fields)


async def occupied(cluster: Cluster, of: Model, worker: Worker, gib: float) -> ModelInstance:
    return await cluster.instance(of, on=worker, claim=Claim(ram=int(gib * GIB)))


async def full(cluster: Cluster, settled: Settled) -> tuple[Worker, Model, ModelInstance]:
    """A worker of which a replica of low priority holds most."""
    worker = await cluster.worker("a", ram=12)
    low = await deployed(cluster, "low", 8, replicas=1)
    victim = await occupied(cluster, low, worker, 8)
    await settled()
    return worker, low, victim


def replicas(cluster: Cluster, of: Model) -> list[ModelInstance]:
    return cluster.snapshot.instances_of(of.id)


async def ended(cluster: Cluster, instance: ModelInstance) -> None:
    """Its worker says that its engine has ended."""
    gone = InstanceReport(gone=True)
    await report_instance(cluster.store, instance.worker_id or 0, instance.id, gone)


async def test_one_of_lower_priority_makes_room_and_waits_again(
    cluster: Cluster, settled: Settled, loops: None
) -> None:
    worker, low, victim = await full(cluster, settled)
    high = await deployed(cluster, "high", 6, priority=100, preempts=True)
    await settled()
    going, after = replicas(cluster, low)
    assert (going.id, going.state_message) == (victim.id, "Makes room for model high (priority 100)")
    assert going.deleted_at is not None
    assert after.state is S.PENDING
    assert after.state_message.startswith("Made room for model high (priority 100). Needs 8.0 GiB")
    (waits,) = replicas(cluster, high)
    assert waits.state_message == f"Waits for 1 instance of lower priority to end on a: {victim.name}"
    assert waits.reserved is not None
    revision = await settled()
    assert await settled() == revision
    # What would fit beside the victim does not get what it frees.
    other = await deployed(cluster, "other", 5)
    await settled()
    await ended(cluster, going)
    await cluster.until_state(waits, S.SCHEDULED)
    await settled()
    placed = cluster.now(waits)
    assert (placed.worker_id, placed.reserved) == (worker.id, None)
    assert [one.state for one in replicas(cluster, other)] == [S.PENDING]


async def test_what_made_room_is_placed_elsewhere_where_it_fits(
    cluster: Cluster, settled: Settled, loops: None
) -> None:
    worker = await cluster.worker("a", ram=12)
    low = await deployed(cluster, "low", 4)
    await occupied(cluster, low, worker, 8)
    await settled()
    await cluster.worker("b", ram=7)
    await deployed(cluster, "high", 6, priority=1, preempts=True)
    await settled()
    (_, after) = replicas(cluster, low)
    assert (after.state, after.displaced_by) == (S.SCHEDULED, "")


async def test_two_that_wait_have_two_end(cluster: Cluster, settled: Settled, loops: None) -> None:
    low = await deployed(cluster, "low", 8, replicas=3)
    victims = [await occupied(cluster, low, await cluster.worker(name, ram=10), 8) for name in "abc"]
    await settled()
    high = await deployed(cluster, "high", 8, replicas=2, priority=1, preempts=True)
    await settled()
    going = [one for one in replicas(cluster, low) if one.deleted_at is not None]
    assert [one.id for one in going] == [victims[1].id, victims[2].id]
    for one in going:
        await ended(cluster, one)
    await settled()
    assert {one.worker_id for one in replicas(cluster, high)} == {one.worker_id for one in going}
    waiting = [one for one in replicas(cluster, low) if one.placement is None]
    assert [one.displaced_by for one in waiting] == ["model high (priority 1)"] * 2


async def test_a_server_that_starts_in_between_goes_on(
    cluster: Cluster, settled: Settled, facts: FactsCache
) -> None:
    worker = await cluster.worker("a", ram=12)
    low = await deployed(cluster, "low", 8, replicas=0)
    victim = await occupied(cluster, low, worker, 8)
    high = await cluster.model("high", priority=5, preempts=True, env=needs(8))
    waits = await cluster.instance(high)
    less = await cluster.instance(await deployed(cluster, "less", 8, priority=4))
    async with trio.open_nursery() as first:
        service = Scheduler(cluster.store, facts)
        await first.start(lambda task_status: service.run(task_status=task_status))
        await cluster.until(lambda s: s.instances[victim.id].deleted_at is not None)
        await settled()
        first.cancel_scope.cancel()
    assert cluster.now(waits).reserved is not None
    await ended(cluster, victim)
    # The header has to be read again first: meanwhile others are decided on.
    cluster.readers.gate = trio.Event()
    async with trio.open_nursery() as second:
        fresh = cluster.facts()
        await second.start(lambda task_status: fresh.run(task_status=task_status))
        again = Scheduler(cluster.store, fresh)
        await second.start(lambda task_status: again.run(task_status=task_status))
        await settled()
        assert cluster.now(less).state is S.PENDING
        cluster.readers.gate.set()
        await cluster.until_state(waits, S.SCHEDULED)
        await settled()
        second.cancel_scope.cancel()
    assert cluster.now(less).state is S.PENDING


async def test_a_place_is_kept_only_as_long_as_it_is_asked_for(
    cluster: Cluster, settled: Settled, loops: None
) -> None:
    _, low, victim = await full(cluster, settled)
    high = await deployed(cluster, "high", 8, priority=5, preempts=True)
    await settled()
    await deployment.update_model(cluster.store, high.id, {"preempts": False, "priority": -5})
    await settled()
    (waits,) = replicas(cluster, high)
    assert waits.reserved is None
    assert waits.state_message.startswith("Needs 8.0 GiB")
    await ended(cluster, victim)
    await settled()
    (after,) = replicas(cluster, low)
    assert after.state is S.SCHEDULED, "it is of higher priority now"


async def test_a_priority_that_is_raised_counts_at_once(
    cluster: Cluster, settled: Settled, loops: None
) -> None:
    worker = await cluster.worker("a", ram=12)
    low = await deployed(cluster, "low", 8, priority=3)
    victim = await occupied(cluster, low, worker, 8)
    high = await deployed(cluster, "high", 8, priority=3, preempts=True)
    await settled()
    assert cluster.now(victim).deleted_at is None
    await deployment.update_model(cluster.store, low.id, {"priority": 2})
    await settled()
    assert cluster.now(victim).deleted_at is not None
    assert [one.reserved is not None for one in replicas(cluster, high)] == [True]


async def test_a_higher_one_takes_the_place_that_is_kept_for_a_lower_one(
    cluster: Cluster, settled: Settled, loops: None
) -> None:
    worker = await cluster.worker("a", ram=10)
    low = await deployed(cluster, "low", 8, replicas=0)
    victim = await occupied(cluster, low, worker, 8)
    high = await deployed(cluster, "high", 8, priority=5, preempts=True)
    await cluster.until(lambda s: s.instances[victim.id].deleted_at is not None)
    await settled()
    highest = await deployed(cluster, "highest", 8, priority=6, preempts=True)
    await settled()
    await ended(cluster, victim)
    await settled()
    (first,), (second,) = replicas(cluster, highest), replicas(cluster, high)
    assert (first.state, second.state) == (S.SCHEDULED, S.PENDING)
    assert second.reserved is None


async def test_a_place_that_is_kept_is_taken_though_an_older_replica_finds_none(
    cluster: Cluster, nursery: trio.Nursery, settled: Settled, facts: FactsCache
) -> None:
    first, second = [await cluster.worker(name, ram=12) for name in "ab"]
    low = await deployed(cluster, "low", 8)
    high = await deployed(cluster, "high", 8, replicas=2, priority=5, preempts=True)
    older = await occupied(cluster, high, first, 8)
    victim = await occupied(cluster, low, second, 8)
    younger = await cluster.instance(high)
    service = Scheduler(cluster.store, facts)
    await nursery.start(lambda task_status: service.run(task_status=task_status))
    await settled()
    assert cluster.now(younger).reserved is not None
    await cluster.change(first, cordoned=True)
    await cluster.store.write(lambda tx: give_up_place(tx, cluster.now(older), REPLACE, "its worker is gone"))
    await settled()
    await ended(cluster, cluster.now(victim))
    await settled()
    assert cluster.now(younger).worker_id == second.id
    assert cluster.now(older).state is S.PENDING

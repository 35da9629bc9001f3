"""A model divided among workers: claimed on all of them at once, lost with any of them, placed anew as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio

from gpustack.domain.instance import Claim, ModelInstance, Placement, Subordinate, workers_of
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.lifecycle import Party
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Worker
from gpustack.server import deployment
from gpustack.server.credential import bar
from gpustack.server.facts import FactsCache
from gpustack.server.report import worker_leaves
from gpustack.server.scheduler import Scheduler
from gpustack.store.transaction import Tx
from tests.policy.shapes import facts_of
from tests.policy.worlds import RPC_BUILD, gpu

from .cluster import Cluster, Settled
from .test_liveness import watching


async def placing(cluster: Cluster, nursery: trio.Nursery, facts: FactsCache, store: Any = None) -> None:
    service = Scheduler(store or cluster.store, facts)
    await nursery.start(lambda task_status: service.run(task_status=task_status))


async def node(cluster: Cluster, name: str, gib: float = 24, **fields: Any) -> Worker:
    return await cluster.worker(name, gpu(0, gib), build=RPC_BUILD, **fields)


async def large(cluster: Cluster, **fields: Any) -> ModelInstance:
    """An instance of a model that needs two GPUs of 24 GiB."""
    cluster.readers.known["me/m/m.gguf"] = facts_of("llama-3.3-70b")
    return await cluster.instance(await cluster.model("m", cpu_offloading=False, **fields))


async def gang(cluster: Cluster, main: Worker, follower: Worker, state: S = S.RUNNING) -> ModelInstance:
    """An instance that runs on both."""
    instance = await cluster.instance(
        await cluster.model("m"), on=main, claim=Claim(vram={0: 20 * GIB}), state=state
    )
    share = Subordinate(worker_id=follower.id, gpu_indexes=(0,), claim=Claim(vram={0: 20 * GIB}))
    placement = attrs.evolve(instance.placement or Placement(worker_id=main.id), subordinates=(share,))
    changed: ModelInstance = await cluster.change(instance, placement=placement)
    return changed


async def test_a_model_larger_than_one_machine_is_claimed_on_two(
    cluster: Cluster, nursery: trio.Nursery, facts: FactsCache
) -> None:
    a, b = await node(cluster, "a", 32), await node(cluster, "b")
    await placing(cluster, nursery, facts)
    placed = await cluster.until_state(await large(cluster), S.SCHEDULED)
    assert workers_of(placed) == {a.id, b.id}
    assert placed.state_message == "Divided among workers over RPC: a leads and uses 1 GPU of b"
    free = {worker.name: cluster.snapshot.free(worker).vram[0] for worker in (a, b)}
    assert free["a"] < 12 * GIB and free["b"] < 12 * GIB
    second = await cluster.instance(cluster.now(cluster.snapshot.models[placed.model_id]))
    waiting = await cluster.until_told(second, "over several workers")
    assert waiting.placement is None


def taken(tx: Tx, worker: Worker, cluster: Cluster) -> None:
    """Somebody else has taken the GPU of ``worker``."""
    model = next(iter(tx.snapshot.models.values()))
    made = tx.insert(
        ModelInstance(name="other", model_id=model.id, model_name=model.name, source=model.source)
    )
    held = Claim(vram={0: 20 * GIB})
    tx.move(made, S.SCHEDULED, by=Party.SCHEDULER, placement=Placement(worker_id=worker.id, claim=held))


def shut(tx: Tx, worker: Worker, cluster: Cluster) -> None:
    tx.change(Worker, worker.id, cordoned=True)


def removed(tx: Tx, worker: Worker, cluster: Cluster) -> None:
    tx.delete(Worker, worker.id)


@pytest.mark.parametrize("meddle", [taken, shut, removed], ids=lambda meddle: meddle.__name__)
@pytest.mark.parametrize("whose", ["main", "follower"])
async def test_a_worker_that_changes_since_the_decision_undoes_it_whichever_it_is(
    cluster: Cluster,
    nursery: trio.Nursery,
    facts: FactsCache,
    meddle: Callable[[Tx, Worker, Cluster], None],
    whose: str,
) -> None:
    """In the very batch in which the claim arrives, before it."""
    a, b = await node(cluster, "a", 32), await node(cluster, "b")
    instance = await large(cluster, categories=("llm",))
    worker, meddled = a if whose == "main" else b, []

    class Meddled:
        def __getattr__(self, name: str) -> Any:
            return getattr(cluster.store, name)

        async def write(self, work: Any) -> Any:
            def both(tx: Any) -> Any:
                if not meddled and "_claim" in work.__qualname__:
                    meddled.append(work)
                    meddle(tx, worker, cluster)
                return work(tx)

            return await cluster.store.write(both)

    await placing(cluster, nursery, facts, Meddled())
    waiting = await cluster.until_told(instance, "To make it fit")
    assert meddled and waiting.placement is None


async def test_an_instance_is_unreachable_when_a_follower_s_worker_is_and_back_when_it_is(
    cluster: Cluster,
) -> None:
    main, follower = await node(cluster, "main"), await node(cluster, "follower")
    runs = await gang(cluster, main, follower)
    async with watching(cluster) as watch:
        watch.heartbeats.heard(follower.id)
        await watch.pass_(46, main)
        assert cluster.now(runs).state is S.UNREACHABLE
        assert "Worker follower has not been heard since" in cluster.now(runs).state_message
        await watch.pass_(30, main)
        watch.heartbeats.heard(follower.id)
        await watch.looks()
        assert cluster.now(runs).state is S.RUNNING


async def test_past_the_grace_it_is_placed_anew_as_a_whole(cluster: Cluster) -> None:
    main, follower = await node(cluster, "main"), await node(cluster, "follower")
    third, fourth = await node(cluster, "third"), await node(cluster, "fourth")
    runs = await gang(cluster, main, follower)
    async with watching(cluster) as watch:
        watch.heartbeats.heard(follower.id)
        await watch.pass_(400, main, third, fourth)
        after = cluster.now(runs)
        assert (after.state, after.placement, after.members) == (S.PENDING, None, ())
        assert after.state_message == "One of its workers has been silent too long; looking for another place"
        assert cluster.snapshot.free(main).vram[0] == 23 * GIB, "what it held elsewhere is free as well"


async def test_a_follower_s_worker_that_stops_in_order_has_it_placed_anew(cluster: Cluster) -> None:
    main, follower = await node(cluster, "main"), await node(cluster, "follower")
    third = await node(cluster, "third")
    runs = await gang(cluster, main, follower)
    await worker_leaves(cluster.store, follower.id)
    async with watching(cluster) as watch:
        await watch.pass_(120, main, third)
        after = cluster.now(runs)
        assert (after.state, after.placement) == (S.PENDING, None)
        assert after.state_message == "One of its workers was stopped; looking for another place"


async def by_removal(cluster: Cluster, worker: Worker) -> None:
    await deployment.delete_worker(cluster.store, worker.id)


async def by_barring(cluster: Cluster, worker: Worker) -> None:
    await bar(cluster.store, worker.id)


@pytest.mark.parametrize("lost", [by_removal, by_barring], ids=lambda lost: lost.__name__)
async def test_losing_a_follower_s_worker_for_good_places_it_anew_at_once(
    cluster: Cluster, lost: Callable[[Cluster, Worker], Awaitable[None]]
) -> None:
    main, follower = await node(cluster, "main"), await node(cluster, "follower")
    runs = await gang(cluster, main, follower)
    await lost(cluster, follower)
    after = cluster.now(runs)
    assert (after.state, after.placement) == (S.PENDING, None)


async def test_draining_a_follower_s_worker_counts_as_draining_the_instance(cluster: Cluster) -> None:
    from gpustack.policy.reconcile import replica_plan

    main, follower = await node(cluster, "main"), await node(cluster, "follower")
    runs = await gang(cluster, main, follower)
    model = cluster.snapshot.models[runs.model_id]
    await cluster.change(follower, draining=True)
    plan = replica_plan(model, cluster.snapshot.instances_of(model.id), cluster.snapshot)
    assert (plan.create, plan.end) == (1, ())


async def test_settled_means_settled_with_a_gang_that_waits(
    cluster: Cluster, nursery: trio.Nursery, facts: FactsCache
) -> None:
    """What it waits for is decided once, and again only when something changes: an address is enough."""
    await node(cluster, "a", 32)
    b = await node(cluster, "b", ip="")
    await placing(cluster, nursery, facts)
    instance = await large(cluster)
    await cluster.until_told(instance, "worker b has not told an address at which others reach it")
    await Settled(cluster)()
    await cluster.change(b, ip="10.0.0.9")
    await cluster.until_state(instance, S.SCHEDULED)

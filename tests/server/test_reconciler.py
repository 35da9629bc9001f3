"""There are as many instances as wanted, of the generation that is wanted, and nobody counts twice."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime

import attrs
import pytest
import trio
import trio.testing

from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.lifecycle import Party
from gpustack.domain.model import Model
from gpustack.domain.taint import Taint, TaintEffect, Toleration
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Worker
from gpustack.errors import Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.server import deployment, reconciler
from gpustack.server.reconciler import ReplicaReconciler, _orphans
from gpustack.server.report import InstanceReport, report_instance
from gpustack.server.scheduler import Scheduler
from gpustack.store.transaction import Tx
from tests.policy import worlds
from tests.policy.shapes import facts_of
from tests.policy.worlds import gpu

from .cluster import PATIENCE, Cluster, Settled


@pytest.fixture
async def replicas(cluster: Cluster, nursery: trio.Nursery) -> ReplicaReconciler:
    service = ReplicaReconciler(cluster.store, random.Random(3))
    await nursery.start(lambda task_status: service.run(task_status=task_status))
    return service


def alive(cluster: Cluster, model: Model) -> list[str]:
    return [i.name for i in cluster.snapshot.instances_of(model.id) if i.deleted_at is None]


async def test_instances_follow_what_is_wanted(
    cluster: Cluster, replicas: ReplicaReconciler, settled: Settled
) -> None:
    model = await cluster.model("m", replicas=3)
    await settled()
    instances = cluster.snapshot.instances_of(model.id)
    assert len({i.name for i in instances}) == 3
    for instance in instances:
        assert instance.name.startswith("m-")
        assert len(instance.name) == 7
        assert (instance.state, instance.generation, instance.source) == (S.PENDING, 1, model.source)
    await deployment.update_model(cluster.store, model.id, {"replicas": 1})
    await settled()
    assert len(alive(cluster, model)) == 1
    await deployment.update_model(cluster.store, model.id, {"replicas": 0})
    await settled()
    assert alive(cluster, model) == []


async def test_nothing_is_written_when_all_is_as_wanted(
    cluster: Cluster, replicas: ReplicaReconciler, settled: Settled
) -> None:
    model = await cluster.model("m", replicas=2)
    before = await settled()
    await cluster.worker("a")
    await cluster.change(model, description="no matter")
    assert await settled() == before + 2, "what the test wrote and nothing else"


async def test_an_instance_deleted_by_hand_is_made_up_for(
    cluster: Cluster, replicas: ReplicaReconciler, settled: Settled
) -> None:
    model = await cluster.model("m")
    await settled()
    (name,) = alive(cluster, model)
    await deployment.delete_instance(cluster.store, cluster.snapshot.instances_of(model.id)[0].id)
    await settled()
    assert len(alive(cluster, model)) == 1
    assert alive(cluster, model) != [name]


async def test_many_hands_at_once_make_no_duplicates(
    cluster: Cluster, replicas: ReplicaReconciler, settled: Settled
) -> None:
    model = await cluster.model("m", replicas=1)
    async with trio.open_nursery() as nursery:
        for wanted in (4, 1, 5, 2, 3):
            nursery.start_soon(deployment.update_model, cluster.store, model.id, {"replicas": wanted})
    await settled()
    assert len(alive(cluster, model)) == cluster.now(model).replicas


async def test_those_that_serve_are_counted(
    cluster: Cluster, replicas: ReplicaReconciler, settled: Settled
) -> None:
    worker = await cluster.worker("a")
    model = await cluster.model("m", replicas=2)
    await settled()
    first, second = cluster.snapshot.instances_of(model.id)
    served = [await cluster.instance(model, on=worker), await cluster.instance(model, on=worker)]
    await cluster.until(lambda s: s.models[model.id].ready_replicas == 2)
    await settled()
    assert {cluster.now(first), cluster.now(second)} == {None}, "what waits is missed least"
    broken = InstanceReport(state=S.ERROR, state_message="x")
    await report_instance(cluster.store, worker.id, served[0].id, broken)
    await cluster.until(lambda s: s.models[model.id].ready_replicas == 1)
    await deployment.delete_instance(cluster.store, served[1].id)
    await cluster.until(lambda s: s.models[model.id].ready_replicas == 0)


async def test_the_broken_and_the_lost_go_first_when_fewer_are_wanted(
    cluster: Cluster, replicas: ReplicaReconciler, settled: Settled
) -> None:
    worker = await cluster.worker("a")
    model = await cluster.model("m", replicas=3)
    running = await cluster.instance(model, on=worker)
    broken = await cluster.instance(model, on=worker)
    starting = await cluster.instance(model, on=worker, state=S.STARTING)
    await cluster.move(broken, S.ERROR)
    await settled()
    for wanted, gone in ((2, broken), (1, starting)):
        await deployment.update_model(cluster.store, model.id, {"replicas": wanted})
        await settled()
        assert cluster.now(gone).deleted_at is not None
    assert cluster.now(running).deleted_at is None


async def test_orphans_end(cluster: Cluster, replicas: ReplicaReconciler, settled: Settled) -> None:
    worker, model = await cluster.worker("a"), await cluster.model("m", replicas=1)
    orphan = await cluster.instance(model, on=worker)
    await cluster.store.write(lambda tx: tx.delete(Model, model.id))
    await settled()
    assert cluster.now(orphan).deleted_at is not None


async def test_a_model_that_cannot_be_read_loses_no_instance() -> None:
    of = worlds.model()
    there = worlds.instance(1, of, on=1)
    assert [one.id for one in _orphans(worlds.world(there))] == [1]
    assert _orphans(attrs.evolve(worlds.world(there), unread={"models": frozenset({of.id})})) == []


async def rolled(cluster: Cluster, nursery: trio.Nursery, gib: float) -> tuple[Model, list[int]]:
    """Edit a running deployment of two replicas on a worker of ``gib``; how many served at each step, by its end.

    The engine is played by this test: what is scheduled runs, what is to end has ended.
    """
    await cluster.worker("a", gpu(0, gib), ram=4)
    facts = cluster.facts()
    for service in (
        facts,
        Scheduler(cluster.store, facts),
        ReplicaReconciler(cluster.store, random.Random(3)),
    ):
        await nursery.start(lambda task_status, service=service: service.run(task_status=task_status))
    model = await cluster.model("m", replicas=2, cpu_offloading=False)
    served = []

    def calm() -> bool:
        now = cluster.snapshot.models[model.id]
        instances = cluster.snapshot.instances_of(model.id)
        return len(instances) == now.ready_replicas == 2 and all(
            i.generation == now.generation and i.state is S.RUNNING for i in instances
        )

    async def play() -> None:
        with trio.fail_after(30), cluster.store.watch() as wake:
            while not calm():
                for instance in cluster.snapshot.instances_of(model.id):
                    if instance.deleted_at is not None and instance.worker_id:
                        gone = InstanceReport(gone=True)
                        await report_instance(cluster.store, instance.worker_id, instance.id, gone)
                    elif instance.state is S.SCHEDULED:
                        await cluster.move(instance, S.RUNNING)
                instances = cluster.snapshot.instances_of(model.id)
                served.append(sum(i.state is S.RUNNING and i.deleted_at is None for i in instances))
                if not calm():
                    await wake.wait(0.5)

    await play()
    served.clear()
    await deployment.update_model(cluster.store, model.id, {"backend_parameters": ("-c", "4096")})
    await play()
    return cluster.now(model), served


async def test_a_new_generation_takes_over_without_a_gap_where_there_is_room(
    cluster: Cluster, nursery: trio.Nursery
) -> None:
    model, served = await rolled(cluster, nursery, 48)
    assert model.ready_replicas == 2
    assert min(served) == 2


async def test_a_new_generation_takes_over_one_by_one_where_there_is_no_room(
    cluster: Cluster, nursery: trio.Nursery
) -> None:
    snug = _room_for_two()
    model, served = await rolled(cluster, nursery, snug)
    assert model.ready_replicas == 2
    assert min(served) == 1


def _room_for_two() -> float:
    """Video memory for two of them and not for three, in GiB."""
    from gpustack.domain.instance import Placement
    from gpustack.policy.schedule import place
    from tests.policy.worlds import ask, model, worker, world

    whole = model(cpu_offloading=False)
    found = place(ask(whole, facts_of("qwen3-0.6b")), world(worker(gpus=[gpu(0, 48)])))
    assert isinstance(found, Placement)
    return 1 + 2.1 * found.claim.vram[0] / GIB


async def test_a_database_that_is_away_is_waited_for(
    cluster: Cluster,
    settled: Settled,
    nursery: trio.Nursery,
) -> None:
    failures = [Unavailable("disk full"), Unavailable("disk full")]

    class Flaky:
        """The store, whose first writes fail."""

        def __getattr__(self, name: str) -> object:
            return getattr(cluster.store, name)

        async def write(self, work: object) -> object:
            if failures:
                raise failures.pop()
            return await cluster.store.write(work)  # type: ignore[arg-type]  # passed on as it is

    service = ReplicaReconciler(Flaky(), random.Random(3))  # type: ignore[arg-type]  # it is one for what is asked of it
    await nursery.start(lambda task_status: service.run(task_status=task_status))
    model = await cluster.model("m")
    await cluster.until(lambda s: s.instances_of(model.id))
    assert not failures


async def test_what_a_drained_worker_runs_is_replaced_a_replica_at_a_time(
    cluster: Cluster, replicas: ReplicaReconciler, settled: Settled
) -> None:
    drained, other = await cluster.worker("drained"), await cluster.worker("other")
    model = await cluster.model("m", replicas=2)
    old = [await cluster.instance(model, on=drained) for _ in range(2)]
    await settled()
    assert len(alive(cluster, model)) == 2
    await cluster.change(drained, draining=True, cordoned=True)
    for left in (1, 0):
        await settled()
        (new,) = [i for i in cluster.snapshot.instances_of(model.id) if i.state is S.PENDING]
        assert len(alive(cluster, model)) == 3, "the new one is there before the old one ends"
        await settled()
        assert len(alive(cluster, model)) == 3
        await place_on(cluster, new, other)
        await settled()
        assert sum(cluster.now(i).deleted_at is None for i in old) == left
    assert len(alive(cluster, model)) == 2
    assert cluster.now(model).ready_replicas == 2


async def test_what_is_open_again_before_it_was_emptied_keeps_what_it_has(
    cluster: Cluster, replicas: ReplicaReconciler, settled: Settled
) -> None:
    worker = await cluster.worker("a")
    model = await cluster.model("m")
    instance = await cluster.instance(model, on=worker)
    await cluster.change(worker, draining=True)
    await settled()
    assert len(alive(cluster, model)) == 2
    await cluster.change(worker, draining=False)
    await settled()
    assert alive(cluster, model) == [instance.name]


async def test_what_does_not_serve_yet_on_a_drained_worker_begins_anew_elsewhere(
    cluster: Cluster, replicas: ReplicaReconciler, settled: Settled
) -> None:
    worker = await cluster.worker("a", draining=True)
    model = await cluster.model("m")
    starting = await cluster.instance(model, on=worker, state=S.STARTING)
    await settled()
    assert cluster.now(starting).deleted_at is not None
    (new,) = [i for i in cluster.snapshot.instances_of(model.id) if i.deleted_at is None]
    assert (new.state, new.placement) == (S.PENDING, None)


async def place_on(cluster: Cluster, instance: ModelInstance, worker: Worker) -> None:
    """As the scheduler and the worker would."""

    def work(tx: Tx) -> None:
        place = Placement(worker_id=worker.id, claim=Claim(ram=GIB))
        tx.change(ModelInstance, instance.id, by=Party.SCHEDULER, state=S.SCHEDULED, placement=place)

    await cluster.store.write(work)
    await cluster.move(instance, S.RUNNING)


async def test_a_model_that_was_settled_otherwise_is_nothing_to_turn_for(cluster: Cluster) -> None:
    """Its write had failed, and then nothing was left to be written."""
    model, now = await cluster.model("m", replicas=0), [0.0]
    faults = Quarantine("replicas", clock=lambda: now[0])
    service = ReplicaReconciler(cluster.store, random.Random(3), faults)
    with faults.row(model.id):
        raise ZeroDivisionError
    now[0] = 1000.0
    assert faults.due_in() < 1
    assert service._due(cluster.store.snapshot, {}, cluster.clock()) == []
    assert faults.due_in() == math.inf


async def test_what_a_taint_evicts_after_a_time_is_replaced_then(
    cluster: Cluster, nursery: trio.Nursery, settled: Settled
) -> None:
    for_a_time = Toleration(key="a", effect=TaintEffect.NO_EXECUTE, toleration_seconds=60)
    here, other = [await cluster.worker(name) for name in ("one", "two")]
    model = await cluster.model("m", tolerations=(for_a_time,))
    first = await cluster.instance(model, on=here)
    taint = Taint(key="a", effect=TaintEffect.NO_EXECUTE, time_added=cluster.clock())
    await cluster.store.write(lambda tx: tx.change(Worker, here.id, taints=(taint,)))
    service = ReplicaReconciler(cluster.store, random.Random(3), now=cluster.clock)
    assert service._seconds_to_eviction() == 60
    await nursery.start(lambda task_status: service.run(task_status=task_status))
    await settled()
    assert alive(cluster, model) == [first.name]
    cluster.clock.forward(60)
    assert service._seconds_to_eviction() == math.inf
    await cluster.model("other", replicas=0)  # a wake, in place of the minute
    await settled()
    assert len(alive(cluster, model)) == 2
    second = next(i for i in cluster.snapshot.instances_of(model.id) if i.name != first.name)
    seat = Placement(worker_id=other.id, claim=Claim(ram=GIB))
    await cluster.store.write(
        lambda tx: tx.move(cluster.now(second), S.SCHEDULED, by=Party.SCHEDULER, placement=seat)
    )
    await cluster.move(second, S.RUNNING)
    await settled()
    assert alive(cluster, model) == [second.name]


async def test_an_eviction_waits_for_no_pause_in_what_workers_report(
    cluster: Cluster, nursery: trio.Nursery
) -> None:
    brief = Toleration(key="a", effect=TaintEffect.NO_EXECUTE, toleration_seconds=1)
    here = await cluster.worker("one")
    model = await cluster.model("m", tolerations=(brief,))
    first = await cluster.instance(model, on=here)
    taint = Taint(key="a", effect=TaintEffect.NO_EXECUTE, time_added=datetime.now(UTC))
    await cluster.store.write(lambda tx: tx.change(Worker, here.id, taints=(taint,)))
    service = ReplicaReconciler(cluster.store, random.Random(3))
    await nursery.start(lambda task_status: service.run(task_status=task_status))
    with trio.fail_after(PATIENCE):
        while alive(cluster, model) == [first.name]:
            # What it reports concerns nobody here, and comes more often than a second.
            await cluster.change(here, heartbeat_time=datetime.now(UTC))
            await trio.sleep(0.2)


async def test_taints_are_looked_at_where_there_are_any(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = [await cluster.worker(name) for name in ("one", "two")]
    model = await cluster.model("m", replicas=2, ready_replicas=2)
    _, second = [await cluster.instance(model, on=one) for one in (here, there)]
    asked: list[int] = []

    def evicted(of: Model, one: ModelInstance, *_: object) -> bool:
        asked.append(one.id)
        return False

    monkeypatch.setattr(reconciler, "is_evicted", evicted)
    service = ReplicaReconciler(cluster.store, random.Random(3))
    assert service._due(cluster.store.snapshot, {}, cluster.clock()) == []
    assert asked == []
    await cluster.change(there, taints=(Taint(key="a", effect=TaintEffect.NO_EXECUTE),))
    service._due(cluster.store.snapshot, {}, cluster.clock())
    assert asked == [second.id]

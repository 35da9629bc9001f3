"""What a plan says is what the control loops do: simulated in worlds at random, and against the loops themselves."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, claims_of
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.policy.placement import USUAL_GANGS
from gpustack.policy.what_if import with_drained, without_workers
from gpustack.server.decisions import decide_all, ready_in
from gpustack.server.facts import FactsResult
from gpustack.server.reconciler import ReplicaReconciler
from gpustack.server.scheduler import Scheduler
from gpustack.server.simulation import Simulation, simulate
from gpustack.store.transaction import Tx
from tests.laws import law
from tests.policy.shapes import facts_of
from tests.policy.test_laws import clusters
from tests.policy.worlds import gpu, model, worker, world

from .cluster import PATIENCE, Cluster, Settled, hub

SHAPES = ("qwen3-0.6b", "llama-3.2-1b", "llama-3.1-8b", "llama-3.3-70b")


def known_of(shapes: Mapping[str, str]) -> Any:
    """What is known of the files of models, by their names."""

    def known(one: Model) -> FactsResult | None:
        shape = shapes.get(one.name)
        facts: ModelFacts | None = None if shape is None else facts_of(shape)
        return None if facts is None else FactsResult(facts=facts, fault=None, at=0.0)

    return known


models_wanted = st.lists(
    st.fixed_dictionaries(
        {
            "shape": st.sampled_from(SHAPES),
            "replicas": st.integers(0, 3),
            "cpu_offloading": st.sampled_from([None, False]),
            "worker_selector": st.sampled_from([{}, {}, {"zone": "a"}]),
            "priority": st.sampled_from([0, 0, 5]),
            "preempts": st.booleans(),
        }
    ),
    min_size=1,
    max_size=4,
)


def start_of(workers: list[Worker], wanted: list[dict[str, Any]]) -> tuple[Snapshot, Any]:
    shapes: dict[str, str] = {}
    models = []
    for key, wish in enumerate(wanted, start=1):
        fields = dict(wish)
        shapes[f"m{key}"] = fields.pop("shape")
        models.append(model(key, source=hub(f"m{key}"), categories=("llm",), **fields))
    return world(*workers, *models), known_of(shapes)


def places(instances: Mapping[int, ModelInstance]) -> list[Any]:
    """Where each model runs, whatever its instances are called."""
    return sorted(
        (one.model_name, one.placement.worker_id, one.placement.gpu_indexes, repr(claims_of(one.placement)))
        for one in instances.values()
        if one.placement is not None
    )


def assert_settled(found: Simulation, known: Any) -> None:
    assert found.is_settled
    again = simulate(found.after, known)
    assert (again.placed, dict(again.ended)) == ([], {}), "what has come to rest stays at rest"
    assert places(again.after.instances) == places(found.after.instances)


def assert_within_memory(snapshot: Snapshot) -> None:
    for one in snapshot.workers.values():
        held: dict[int, int] = {}
        for _, claim in snapshot.claims_on(one.id):
            for index, size in claim.vram.items():
                held[index] = held.get(index, 0) + size
        for index, size in held.items():
            device = one.device(index)
            assert device is not None and device.memory.total is not None
            assert size <= device.memory.total - one.system_reserved.vram


@law(6)
@given(workers=clusters(), wanted=models_wanted)
def test_a_plan_decides_as_the_scheduler_does_on_the_same_snapshot(
    workers: list[Worker], wanted: list[dict[str, Any]]
) -> None:
    """All replicas are created first, so one pass of the scheduler decides on all of them."""
    start, known = start_of(workers, wanted)
    found = simulate(start, known)
    assert_settled(found, known)
    assert_within_memory(found.after)
    assert simulate(start, known).after.instances == found.after.instances, "the same again"
    bare = [
        attrs.evolve(one, placement=None, state=InstanceState.PENDING)
        for one in found.after.instances.values()
    ]
    created = start.changed(*bare)
    ready, unread = ready_in(created, known)
    assert not unread
    decided = {one.ready.instance.id: one.decision for one in decide_all(ready, created, {}, USUAL_GANGS)}
    for key, one in found.after.instances.items():
        if one.placement is None:
            assert isinstance(decided[key], str), decided[key]
        else:
            assert decided[key] == one.placement


@law(6)
@given(workers=clusters(), wanted=models_wanted, chosen=st.integers(0, 3), drain=st.booleans())
def test_a_worker_less_leads_to_rest_and_leaves_nothing_on_it(
    workers: list[Worker], wanted: list[dict[str, Any]], chosen: int, drain: bool
) -> None:
    start, known = start_of(workers, wanted)
    full = simulate(start, known).after
    key = workers[chosen % len(workers)].id
    if drain:
        found = simulate(with_drained(full, [key]), known, before=full)
    else:
        found = simulate(without_workers(full, [key]), known, before=full)
        assert key not in found.after.workers
        assert all(
            key not in dict(claims_of(p)) for one in found.after.instances.values() if (p := one.placement)
        )
    assert_settled(found, known)
    assert_within_memory(found.after)
    for one in full.models.values():
        now = [i for i in full.instances_of(one.id) if i.placement is not None]
        then = [i for i in found.after.instances_of(one.id) if i.placement is not None]
        assert drain is False or len(then) == len(now), "a drain takes no instance that finds no other place"


def test_a_model_of_higher_priority_shows_whom_it_would_end() -> None:
    node = worker(1, gpus=[gpu(0, 10)], ram=4)
    wish = {"shape": "llama-3.1-8b", "replicas": 1, "cpu_offloading": False}
    start, known = start_of([node], [wish, {**wish, "priority": 5, "preempts": True, "replicas": 0}])
    full = simulate(start, known).after
    assert [one.model_name for one in full.instances.values() if one.placement] == ["m1"]
    higher = attrs.evolve(full.models[2], replicas=1)
    found = simulate(full.changed(higher), known, before=full)
    assert_settled(found, known)
    assert list(found.ended.values()) == ["makes room for model m2 (priority 5)"]
    assert [one.model_name for one in found.placed] == ["m2"]
    (waiting,) = found.waits
    assert found.after.instances[waiting].model_name == "m1"


def test_an_unread_header_is_no_decision() -> None:
    start, _ = start_of([], [{"shape": SHAPES[0], "replicas": 1}])
    found = simulate(start, lambda one: None)
    assert [one.name for one in found.unread] == ["m1"] and not found.waits and not found.placed


@asynccontextmanager
async def loops(cluster: Cluster, seed: int, settled: Settled) -> AsyncIterator[None]:
    """The control loops, started once all headers are read and the first replicas are created: in which order they are
    would be chance else."""
    facts = cluster.facts(fresh_for=math.inf)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: facts.run(task_status=task_status))
        for one in cluster.snapshot.models.values():
            await facts.wait_for(one, lambda found: found is not None, within=PATIENCE)
        for service in (
            ReplicaReconciler(cluster.store, random.Random(seed)),
            Scheduler(cluster.store, facts),
        ):
            await nursery.start(lambda task_status, service=service: service.run(task_status=task_status))
            await settled()
        yield
        nursery.cancel_scope.cancel()


async def bring_up(cluster: Cluster, settled: Settled) -> None:
    """Have everything that was placed run, and what ends be gone, until nothing changes."""
    while True:
        await settled()
        instances = cluster.snapshot.instances.values()
        ends = [one for one in instances if one.deleted_at is not None]
        starts = [one for one in instances if one.state is InstanceState.SCHEDULED and one not in ends]
        if not starts and not ends:
            return
        await cluster.store.write(partial(_engines_do, starts, ends))


def _engines_do(starts: list[ModelInstance], ends: list[ModelInstance], tx: Tx) -> None:
    for one in starts:
        for state in (InstanceState.INITIALIZING, InstanceState.STARTING, InstanceState.RUNNING):
            one = tx.move(one, state, by=Party.WORKER)
    for one in ends:
        tx.delete(ModelInstance, one.id)


@pytest.mark.parametrize("seed", range(2))
async def test_what_is_planned_is_what_the_loops_do(cluster: Cluster, seed: int) -> None:
    """Deployments on an empty cluster; then a drain, a change of what runs, and fewer replicas, together."""
    chance = random.Random(seed)
    for name in ("a", "b", "c", "d")[: chance.randint(2, 4)]:
        cards = [gpu(index, chance.choice([8, 16, 24])) for index in range(chance.randint(0, 2))]
        await cluster.worker(name, *cards, ram=chance.choice([4, 16, 64]))
    shapes = {}
    for number in range(chance.randint(3, 5)):
        name = f"m{number}"
        shapes[name] = chance.choice(SHAPES[:3])
        cluster.readers.known[f"me/{name}/{name}.gguf"] = facts_of(shapes[name])
        await cluster.model(
            name,
            replicas=chance.randint(1, 3),
            categories=("llm",),
            cpu_offloading=chance.choice([None, False]),
            priority=chance.choice([0, 3]),
            preempts=chance.choice([False, True]),
        )
    known, settled = known_of(shapes), Settled(cluster)
    expected = simulate(cluster.snapshot, known)
    async with loops(cluster, seed, settled):
        await bring_up(cluster, settled)
        assert places(cluster.snapshot.instances) == places(expected.after.instances)
    models = list(cluster.snapshot.models.values())
    drained = cluster.snapshot.workers[min(cluster.snapshot.workers)]
    changed = [
        attrs.evolve(models[0], generation=2, env={"A": "b"}),
        attrs.evolve(models[1], replicas=models[1].replicas - 1),
    ]
    supposed = with_drained(cluster.snapshot.changed(*changed), [drained.id])
    expected = simulate(supposed, known, before=cluster.snapshot)
    for one in changed:
        await cluster.change(one, generation=one.generation, env=one.env, replicas=one.replicas)
    await cluster.change(drained, cordoned=True, draining=True)
    async with loops(cluster, seed, settled):
        await bring_up(cluster, settled)
        assert places(cluster.snapshot.instances) == places(expected.after.instances)

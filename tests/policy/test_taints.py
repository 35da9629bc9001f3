"""Taints of workers keep deployments away that do not tolerate them, and end what runs there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.record import Record
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.taint import Taint, TaintEffect, Toleration, TolerationOperator
from gpustack.policy.eviction import evicted_at
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.reconcile import ReplicaPlan, replica_plan
from gpustack.policy.schedule import Unschedulable, place

from .shapes import facts_of
from .worlds import ask, gpu, instance, model, worker, world

SMALL = facts_of("llama-3.2-1b")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEVER, RATHER_NOT, OUT = TaintEffect.NO_SCHEDULE, TaintEffect.PREFER_NO_SCHEDULE, TaintEffect.NO_EXECUTE
EXISTS = TolerationOperator.EXISTS


def taint(key: str, effect: TaintEffect, value: str = "", added: datetime | None = NOW) -> Taint:
    return Taint(key=key, value=value, effect=effect, time_added=added)


def tolerant(*tolerations: Toleration, **fields: Any) -> PlacementRequest:
    return ask(model(tolerations=tolerations, **fields), SMALL)


def outcome(question: PlacementRequest, *records: Record) -> int | str:
    """The worker that is taken, or the sentence why there is none."""
    found = place(question, world(*records))
    return found.worker_id if isinstance(found, Placement) else found.sentence


def test_nothing_is_placed_where_a_taint_is_not_tolerated() -> None:
    there = worker(1, gpus=[gpu(0)], taints=(taint("gpu", NEVER, "a100"),))
    assert str(outcome(tolerant(), there)).startswith(
        "Worker node-a has the taint gpu=a100:NoSchedule, which the deployment does not tolerate. To make it fit: let "
        "the deployment tolerate gpu=a100:NoSchedule (tolerations), or take it from worker node-a"
    )
    assert outcome(tolerant(), there, worker(2)) == 2


@pytest.mark.parametrize(
    ("toleration", "goes"),
    [
        (Toleration(key="gpu", value="a100", effect=NEVER), True),
        (Toleration(key="gpu", value="a100"), True),
        (Toleration(key="gpu", operator=EXISTS), True),
        (Toleration(operator=EXISTS), True),
        (Toleration(key="gpu", value="h100"), False),
        (Toleration(key="gpu"), False),
        (Toleration(key="cpu", operator=EXISTS), False),
        (Toleration(key="gpu", operator=EXISTS, effect=OUT), False),
    ],
)
def test_tolerations_are_compared_as_kubernetes_does(toleration: Toleration, goes: bool) -> None:
    there = worker(1, taints=(taint("gpu", NEVER, "a100"),))
    assert (outcome(tolerant(toleration), there) == 1) is goes


def test_every_taint_needs_its_toleration() -> None:
    there = worker(1, taints=(taint("a", NEVER), taint("b", OUT)))
    says = outcome(tolerant(Toleration(key="a")), there)
    assert str(says).startswith("Worker node-a has the taint b:NoExecute, which the deployment does not")
    assert "the taints a:NoSchedule and b:NoExecute" in str(outcome(tolerant(), there))
    assert outcome(tolerant(Toleration(key="a"), Toleration(key="b")), there) == 1


def test_others_are_preferred_to_a_worker_that_rather_has_nothing() -> None:
    marked, busy = worker(1, taints=(taint("a", RATHER_NOT),)), worker(2)
    held = instance(7, model(), on=2)
    assert outcome(tolerant(), marked, busy, held) == 2
    assert outcome(tolerant(Toleration(key="a")), marked, busy, held) == 1
    assert outcome(tolerant(), marked) == 1


def test_nothing_new_goes_where_it_is_tolerated_for_a_time_only() -> None:
    there = worker(1, taints=(taint("a", OUT),))
    for_a_time = Toleration(key="a", effect=OUT, toleration_seconds=60)
    assert "which the deployment tolerates only for a time" in str(outcome(tolerant(for_a_time), there))


def test_a_taint_and_its_toleration_are_of_the_class_of_a_worker() -> None:
    """Among many that are alike but for their taints each is judged by its own."""
    some = [worker(key, taints=(taint("a", NEVER),) if key % 2 else ()) for key in range(1, 9)]
    found = place(tolerant(cpu_offloading=False), world(*some))
    assert isinstance(found, Unschedulable)
    assert outcome(tolerant(), *some) == 2
    assert outcome(tolerant(Toleration(key="a")), *some) == 1


# --- what runs there


def plan(*tolerations: Toleration, waits: ModelInstance | None = None, at: float = 0.0) -> ReplicaPlan:
    """With one replica on a tainted worker, so many seconds after it was tainted."""
    of = model(tolerations=tolerations)
    there = [instance(1, of, on=1), *([waits] if waits is not None else [])]
    return replica_plan(of, there, tainted(), NOW + timedelta(seconds=at))


def tainted() -> Snapshot:
    return world(worker(1, taints=(taint("a", OUT),)), worker(2))


def test_what_runs_on_a_worker_whose_taint_it_does_not_tolerate_is_replaced_first() -> None:
    of = model()
    assert plan() == ReplicaPlan(create=1)
    assert plan(waits=instance(2, of)) == ReplicaPlan(), "it is being decided on"
    starting = instance(2, of, on=2, state=InstanceState.STARTING)
    assert plan(waits=starting) == ReplicaPlan()
    assert plan(waits=instance(2, of, on=2)) == ReplicaPlan(end=(1,))


def test_it_ends_as_well_where_its_replacement_finds_no_place_or_fails() -> None:
    """Unlike what is drained."""
    of = model()
    assert plan(waits=instance(2, of, state_message="there is no room")) == ReplicaPlan(end=(1,))
    assert plan(waits=instance(2, of, on=2, state=InstanceState.ERROR)).end == (1,)
    drained = world(worker(1, draining=True), worker(2))
    waits = instance(2, of, state_message="there is no room")
    assert replica_plan(of, [instance(1, of, on=1), waits], drained, NOW) == ReplicaPlan()


def test_what_does_not_run_ends_at_once() -> None:
    of = model()
    loading = instance(1, of, on=1, state=InstanceState.STARTING)
    assert replica_plan(of, [loading], tainted(), NOW) == ReplicaPlan(create=1, end=(1,))


@pytest.mark.parametrize(("at", "stays"), [(0, True), (59, True), (60, False)])
def test_a_taint_that_is_tolerated_for_a_time_ends_it_then(at: float, stays: bool) -> None:
    for_a_time = Toleration(key="a", effect=OUT, toleration_seconds=60)
    assert (plan(for_a_time, at=at) == ReplicaPlan()) is stays
    of = model(tolerations=(for_a_time, Toleration(operator=EXISTS)))
    assert evicted_at(of, instance(1, of, on=1), tainted()) == NOW + timedelta(seconds=60), (
        "the shortest counts"
    )


def test_what_is_tolerated_for_ever_stays() -> None:
    assert plan(Toleration(key="a")) == ReplicaPlan()
    assert plan(Toleration(key="a"), at=1e9) == ReplicaPlan()


def test_of_several_replicas_those_that_a_taint_evicts_go() -> None:
    of = model(replicas=2)
    there = [instance(1, of, on=1), instance(2, of, on=2), instance(3, of, state_message="no room")]
    assert replica_plan(of, there, tainted(), NOW).end == (1,)
    moved = attrs.evolve(there[2], placement=there[1].placement, state=InstanceState.RUNNING)
    assert replica_plan(of, [*there[:2], moved], tainted(), NOW).end == (1,)

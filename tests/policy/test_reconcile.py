"""How many replicas there should be, and how a new generation takes over."""

from __future__ import annotations

import datetime

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.instance import Claim, ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import ClaimIndex, Snapshot
from gpustack.domain.worker import Condition, WorkerState
from gpustack.policy.placement import MAKES_ROOM
from gpustack.policy.reconcile import ReplicaPlan, replica_plan

from .worlds import instance, model, worker, world

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
HERE = world(worker(1), worker(2))
CROWDED = f"Needs 5.0 GiB. To make it fit: wait until {MAKES_ROOM}"


def running(key: int, of: Model, *, generation: int = 1, on: int = 1) -> ModelInstance:
    return instance(key, of, on=on, generation=generation)


def waiting(key: int, of: Model, *, generation: int = 1, message: str = "") -> ModelInstance:
    return instance(key, of, generation=generation, state_message=message)


def plan(of: Model, *instances: ModelInstance, snapshot: Snapshot = HERE) -> ReplicaPlan:
    return replica_plan(of, list(instances), snapshot)


def test_missing_replicas_are_created_and_surplus_ones_end() -> None:
    assert plan(model(replicas=3)) == ReplicaPlan(create=3)
    assert plan(model(replicas=3), running(1, model())) == ReplicaPlan(create=2)
    assert len(plan(model(replicas=1), running(1, model()), running(2, model())).end) == 1
    assert plan(model(replicas=0), running(1, model())) == ReplicaPlan(end=(1,))


def test_one_that_is_being_ended_does_not_count() -> None:
    ending = attrs.evolve(running(1, model()), deleted_at=NOW)
    assert plan(model(), ending) == ReplicaPlan(create=1)


def test_what_does_not_work_goes_before_what_does() -> None:
    of = model(replicas=1)
    broken = attrs.evolve(running(1, of), state=InstanceState.ERROR)
    starting = attrs.evolve(running(2, of), state=InstanceState.STARTING)
    assert plan(of, running(3, of), starting, broken, waiting(4, of)).end == (4, 1, 2)


def test_replicas_on_a_lost_worker_go_first() -> None:
    lost = attrs.evolve(worker(2), condition=Condition(state=WorkerState.NOT_READY))
    assert plan(
        model(), running(1, model(), on=2), running(2, model()), snapshot=world(worker(1), lost)
    ).end == (1,)


def test_of_equals_the_one_with_less_on_devices_and_then_the_youngest_goes() -> None:
    of = model()
    full, half = (Claim(vram={0: 1}, offload_layers=n, total_layers=10) for n in (10, 5))
    assert plan(of, instance(1, of, on=1, claim=half), instance(2, of, on=1, claim=full)).end == (1,)
    assert plan(of, running(1, of), running(2, of)).end == (2,)


def test_a_new_generation_starts_beside_the_old_one() -> None:
    assert plan(model(generation=2), running(1, model())) == ReplicaPlan(create=1)


def test_the_old_one_serves_until_the_new_one_does() -> None:
    of = model(generation=2)
    assert plan(of, running(1, of), waiting(2, of, generation=2)) == ReplicaPlan()
    assert plan(of, running(1, of), running(2, of, generation=2)) == ReplicaPlan(end=(1,))


def test_several_replicas_are_replaced_one_at_a_time() -> None:
    of = model(generation=2, replicas=3)
    old = [running(key, of) for key in (1, 2, 3)]
    assert plan(of, *old) == ReplicaPlan(create=1)
    assert plan(of, *old, waiting(4, of, generation=2)) == ReplicaPlan()
    found = plan(of, *old, running(4, of, generation=2))
    assert (found.create, len(found.end)) == (1, 1)


def test_without_room_for_both_the_old_one_ends_first() -> None:
    of = model(generation=2)
    assert plan(of, running(1, of), waiting(2, of, generation=2, message=CROWDED)) == ReplicaPlan(end=(1,))


def test_a_stale_word_about_room_costs_no_second_replica() -> None:
    of = model(generation=2, replicas=2)
    new = waiting(3, of, generation=2, message=CROWDED)
    assert len(plan(of, running(1, of), running(2, of), new).end) == 1
    ending = attrs.evolve(running(1, of), deleted_at=NOW)
    assert plan(of, ending, running(2, of), new) == ReplicaPlan()
    assert plan(of, running(2, of), new) == ReplicaPlan()


def test_a_new_generation_that_cannot_start_leaves_the_old_one_serving() -> None:
    of = model(generation=2)
    broken = attrs.evolve(running(2, of, generation=2), state=InstanceState.ERROR)
    assert plan(of, running(1, of), broken) == ReplicaPlan()
    assert (
        plan(of, running(1, of), waiting(2, of, generation=2, message="Backend parameter x is wrong"))
        == ReplicaPlan()
    )


def test_old_replicas_that_serve_nobody_are_replaced_at_once() -> None:
    of = model(generation=2)
    assert plan(of, waiting(1, of)) == ReplicaPlan(create=1, end=(1,))


@pytest.mark.parametrize("replicas", [0, 1, 2])
def test_an_unreachable_old_replica_is_kept_until_a_new_one_serves(replicas: int) -> None:
    of = model(generation=2, replicas=replicas)
    silent = attrs.evolve(running(1, of), state=InstanceState.UNREACHABLE)
    assert plan(of, silent).end == ((1,) if replicas == 0 else ())


states = st.sampled_from(list(InstanceState))


@st.composite
def populations(draw: st.DrawFn) -> tuple[Model, list[ModelInstance]]:
    of = model(replicas=draw(st.integers(0, 4)), generation=2)
    found = []
    for key in range(1, draw(st.integers(0, 8)) + 1):
        state = draw(states)
        placed = state not in (InstanceState.PENDING, InstanceState.ANALYZING)
        found.append(
            instance(
                key,
                of,
                on=draw(st.integers(1, 2)) if placed else None,
                state=state,
                state_message=draw(st.sampled_from(["", CROWDED])),
                generation=draw(st.integers(1, 2)),
                deleted_at=draw(st.sampled_from([None, None, NOW])),
            )
        )
    return of, found


def carried_out(of: Model, instances: list[ModelInstance], decided: ReplicaPlan) -> list[ModelInstance]:
    left = [attrs.evolve(i, deleted_at=NOW) if i.id in decided.end else i for i in instances]
    return left + [waiting(100 + n, of, generation=of.generation) for n in range(decided.create)]


@given(populations())
def test_reconciling_twice_is_reconciling_once(population: tuple[Model, list[ModelInstance]]) -> None:
    of, instances = population
    decided = plan(of, *instances)
    assert plan(of, *carried_out(of, instances, decided)) == ReplicaPlan()


@given(populations())
def test_a_plan_never_takes_more_than_one_from_those_that_serve(
    population: tuple[Model, list[ModelInstance]],
) -> None:
    of, instances = population
    after = carried_out(of, instances, plan(of, *instances))

    def serving(those: list[ModelInstance]) -> int:
        return sum(i.state is InstanceState.RUNNING and i.deleted_at is None for i in those)

    assert serving(after) >= min(serving(instances), of.replicas) - 1
    assert sum(i.deleted_at is None for i in after) <= max(of.replicas + 1, len(instances))


@given(st.integers(1, 4))
def test_a_rollout_ends_with_the_new_generation_alone(replicas: int) -> None:
    of = model(replicas=replicas, generation=2)
    there = [running(key, of) for key in range(1, replicas + 1)]
    least = replicas
    for turn in range(20):
        decided = plan(of, *there)
        if decided == ReplicaPlan() and all(i.state is InstanceState.RUNNING for i in there):
            break
        there = [i for i in carried_out(of, there, decided) if i.deleted_at is None]
        least = min(least, sum(i.state is InstanceState.RUNNING for i in there))
        there = [
            i if i.placement else running(1000 + 10 * turn + n, of, generation=2) for n, i in enumerate(there)
        ]
    assert [i.generation for i in there] == [2] * replicas
    assert least == replicas


def test_nobody_is_rated_where_nobody_ends() -> None:
    """To rate replicas takes the claims of all instances, and this is asked after each report of one."""
    here = world(worker(1), worker(2))
    assert (
        plan(model(replicas=2), running(1, model()), running(2, model(), on=2), snapshot=here)
        == ReplicaPlan()
    )
    assert ClaimIndex not in here.worked_out

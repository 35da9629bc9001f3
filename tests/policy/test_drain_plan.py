"""What a drain leads to is told beforehand, by the rules that the drain then follows."""

from __future__ import annotations

import datetime
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.instance import Claim, ModelInstance, Placement, workers_of
from gpustack.domain.lifecycle import SERVING, InstanceState
from gpustack.domain.model import Model
from gpustack.domain.record import Record
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.policy.drain_plan import DrainMove, DrainWay, drain_plan, drain_progress
from gpustack.policy.placement import PlacementRequest
from tests.laws import law

from .worlds import ask, instance, model, worker, world

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def command(key: int = 1, gib: int = 4, **fields: Any) -> Model:
    """A deployment that claims memory of the host and nothing else."""
    env = {"GPUSTACK_MODEL_RAM_CLAIM": str(gib * GIB)}
    return model(key, backend="custom", command="serve {port}", env=env, **fields)


def asked(of: Model, one: ModelInstance) -> PlacementRequest | str:
    return ask(of, instance=one, engine_name="custom")


def running(key: int, of: Model, on: int, **fields: Any) -> ModelInstance:
    gib = int(of.env["GPUSTACK_MODEL_RAM_CLAIM"]) // GIB
    return instance(key, of, on=on, claim=Claim(ram=gib * GIB), **fields)


def moves(*records: Record, worker_id: int = 1) -> list[DrainMove]:
    return list(drain_plan([worker_id], world(*records), asked).moves)


def test_what_fits_elsewhere_is_replaced_first() -> None:
    of = command()
    (move,) = moves(worker(1), worker(2), of, running(1, of, 1))
    assert (move.instance, move.model, move.way, move.why) == ("m1-1", "m1", DrainWay.REPLACED_FIRST, "")
    assert move.placement is not None and move.placement.worker_id == 2
    assert move.placement.claim.ram == 4 * GIB


def test_what_fits_nowhere_stays_and_is_told_why() -> None:
    of = command(gib=20)
    (move,) = moves(worker(1), worker(2, ram=16), of, running(1, of, 1))
    assert (move.way, move.placement) == (DrainWay.STAYS, None)
    assert "worker node-b has 14.0 GiB free" in move.why


def test_of_several_as_many_move_as_there_is_room_for() -> None:
    """What ends on the drained worker makes no room elsewhere."""
    of = command(gib=6, replicas=3)
    found = moves(worker(1), worker(2, ram=16), of, *(running(key, of, 1) for key in (1, 2, 3)))
    assert [one.way for one in found] == [DrainWay.REPLACED_FIRST] * 2 + [DrainWay.STAYS]
    assert "short by" in found[-1].why


def test_what_serves_nobody_ends_first() -> None:
    of = command()
    broken = running(1, of, 1, state=InstanceState.ERROR)
    (move,) = moves(worker(1), worker(2), of, broken)
    assert move.way is DrainWay.ENDS_FIRST
    assert move.placement is not None and move.placement.worker_id == 2


def test_what_is_not_asked_for_any_more_only_ends() -> None:
    of = command(replicas=0)
    (move,) = moves(worker(1), worker(2), of, running(1, of, 1))
    assert (move.way, move.placement, move.why) == (DrainWay.NOT_REPLACED, None, "")


def test_models_of_higher_priority_get_the_places_that_are_left() -> None:
    low, high = command(1, gib=8), command(2, gib=8, priority=5)
    found = moves(worker(1), worker(2, ram=12), low, high, running(1, low, 1), running(2, high, 1))
    assert [(one.model, one.way) for one in found] == [
        ("m2", DrainWay.REPLACED_FIRST),
        ("m1", DrainWay.STAYS),
    ]


def test_a_replica_that_does_not_run_is_waited_for() -> None:
    """Else one more would go while another is missing already."""
    of = command(replicas=2)
    broken = running(2, of, 2, state=InstanceState.ERROR, state_message="It fell over")
    (move,) = moves(worker(1), worker(2), worker(3), of, running(1, of, 1), broken)
    assert (move.way, move.why) == (DrainWay.STAYS, "m1-2 is error: It fell over")


def test_what_is_on_its_way_elsewhere_is_taken_to_run_soon() -> None:
    of = command(replicas=2)
    starting = running(2, of, 2, state=InstanceState.STARTING)
    (move,) = moves(worker(1), worker(2), of, running(1, of, 1), starting)
    assert move.way is DrainWay.REPLACED_FIRST


def test_a_model_that_cannot_be_asked_for_stays() -> None:
    of = command()
    snapshot = world(worker(1), worker(2), of, running(1, of, 1))
    (move,) = drain_plan([1], snapshot, lambda of, one: "Its header is being read").moves
    assert (move.way, move.why) == (DrainWay.STAYS, "Its header is being read")


def test_several_workers_are_drained_at_once() -> None:
    of = command(replicas=2)
    snapshot = world(worker(1), worker(2), worker(3), of, running(1, of, 1), running(2, of, 2))
    plan = drain_plan([1, 2], snapshot, asked)
    assert [one.placement.worker_id for one in plan.moves if one.placement] == [3, 3]
    assert {i.worker_id for i in plan.after.instances.values()} == {3}


def test_progress_tells_what_is_left_and_what_is_waited_for() -> None:
    of = command(replicas=2)
    drained = worker(1, draining=True, drain_total=5)
    waits = instance(3, of, state_message="No room")
    ends = running(1, of, 1, deleted_at=NOW)
    snapshot = world(drained, worker(2), of, ends, running(2, of, 1), waits)
    found = drain_progress(drained, snapshot)
    assert (found.of, found.left) == (5, ("m1-1", "m1-2"))
    assert found.waits_for == ("m1-3: pending: No room",)


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    workers = [worker(key, ram=draw(st.integers(6, 24))) for key in range(1, draw(st.integers(2, 4)) + 1)]
    snapshot = world(*workers)
    key = 0
    for number in range(1, draw(st.integers(1, 4)) + 1):
        of = command(
            number,
            gib=draw(st.integers(1, 6)),
            replicas=draw(st.integers(0, 3)),
            priority=draw(st.integers(-1, 1)),
        )
        snapshot = snapshot.changed(of)
        for _ in range(draw(st.integers(0, 3))):
            key += 1
            there = draw(st.sampled_from(workers))
            made = running(key, of, there.id, state=draw(st.sampled_from(_STATES)))
            if (snapshot.free(there).ram or 0) >= 0 and _fits(snapshot, there.id, made):
                snapshot = snapshot.changed(made)
    return snapshot


_STATES = [InstanceState.RUNNING, InstanceState.RUNNING, InstanceState.STARTING, InstanceState.ERROR]


def _fits(snapshot: Snapshot, worker_id: int, one: ModelInstance) -> bool:
    assert one.placement is not None
    return (snapshot.free(snapshot.workers[worker_id]).ram or 0) >= one.placement.claim.ram


def _crowded(snapshot: Snapshot) -> list[str]:
    return [
        one.name
        for one in snapshot.workers.values()
        if (held := sum(claim.ram for _, claim in snapshot.claims_on(one.id)))
        and held + one.system_reserved.ram > (one.status.memory.total or 0)
    ]


@law(25)
@given(snapshot=worlds(), shuffle=st.randoms(use_true_random=False))
def test_a_plan_is_right_in_every_world(snapshot: Snapshot, shuffle: Any) -> None:
    plan = drain_plan([1], snapshot, asked)
    assert _crowded(plan.after) == [], "nothing is promised twice"
    moved = [one.placement for one in plan.moves if isinstance(one.placement, Placement)]
    assert all(place.worker_id != 1 for place in moved)
    assert {one.instance_id for one in plan.moves} == {
        one.id for one in snapshot.instances.values() if 1 in workers_of(one)
    }
    left = {one.id for one in plan.after.instances.values() if 1 in workers_of(one)}
    assert left == {one.instance_id for one in plan.moves if one.way is DrainWay.STAYS}
    for of in snapshot.models.values():
        before, after = (_serving(of, one) for one in (snapshot, plan.after))
        assert after >= min(before, of.replicas), "no drain takes a replica that serves from those asked for"
    turned = [*snapshot.workers.values()]
    shuffle.shuffle(turned)
    again = world(*turned, *snapshot.models.values(), *snapshot.instances.values())
    assert drain_plan([1], again, asked) == plan


def _serving(of: Model, snapshot: Snapshot) -> int:
    return sum(one.state in SERVING for one in snapshot.instances_of(of.id))


@law(12)
@given(snapshot=worlds())
def test_once_all_is_done_there_is_nothing_left_to_do(snapshot: Snapshot) -> None:
    plan = drain_plan([1], snapshot, asked)
    again = drain_plan([1], plan.after, asked)
    assert {one.way for one in again.moves} <= {DrainWay.STAYS}
    assert attrs.evolve(again, after=plan.after).moves == tuple(
        one for one in plan.moves if one.way is DrainWay.STAYS
    )

"""Who ends so that an instance of higher priority fits: as few as that takes, and no more while they are ending."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.affinity import AntiAffinity, AntiAffinityTerm
from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.record import Record
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.policy.decision import decide
from gpustack.policy.explain import explain
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.preemption import Preemption, above, confirmed, preempt, priority_of
from tests.laws import law

from .shapes import facts_of
from .test_drain_plan import _crowded, command, running
from .test_laws import clusters, deployed, grown, wishes
from .worlds import ask, gpu, instance, model, worker, world

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def urgent(key: int = 50, gib: int = 8, **fields: Any) -> Model:
    return command(key, gib, **{"priority": 50, "preempts": True, **fields})


def asked(of: Model, key: int = 500, **fields: Any) -> PlacementRequest:
    return ask(of, instance=instance(key, of, **fields), engine_name="custom")


def preempted(of: Model, *there: Record) -> list[int] | None:
    found = preempt(asked(of), world(of, *there))
    return None if found is None else sorted(one.id for one in found.victims)


def test_the_lowest_priority_ends_though_it_takes_more_of_them() -> None:
    low, high = command(1, 4, priority=-1), command(2, 8, priority=10)
    there = [running(1, low, 1), running(2, low, 1), running(3, high, 2)]
    assert preempted(urgent(), worker(1, ram=10), worker(2, ram=10), low, high, *there) == [1, 2]


def test_of_equals_the_fewest_end() -> None:
    small, large = command(1, 4), command(2, 8)
    there = [running(1, small, 1), running(2, small, 1), running(3, large, 1), running(4, small, 2)]
    assert preempted(urgent(), worker(1, ram=18), worker(2, ram=10), small, large, *there) == [4]


def test_of_as_many_those_that_serve_nobody_end_and_then_the_youngest() -> None:
    of = command(1, 8)
    starts = running(1, of, 1, state=InstanceState.STARTING)
    workers = [worker(key, ram=10) for key in (1, 2, 3)]
    assert preempted(urgent(), *workers, of, starts, running(2, of, 2), running(3, of, 3)) == [1]
    assert preempted(urgent(), *workers, of, *(running(key, of, key) for key in (1, 2, 3))) == [3]


@pytest.mark.parametrize(
    "other",
    [
        command(1, 8, priority=50),
        command(1, 8, priority=51),
        command(1, 8, preemptible=False),
    ],
)
def test_neither_equals_nor_those_that_must_not_be_ended_end(other: Model) -> None:
    assert preempted(urgent(), worker(1, ram=10), other, running(1, other, 1)) is None


def test_only_a_model_that_asks_for_it_preempts() -> None:
    of = command(1, 8)
    assert preempted(urgent(preempts=False), worker(1, ram=10), of, running(1, of, 1)) is None


def test_nothing_ends_where_that_would_not_help() -> None:
    of = command(1, 8)
    assert preempted(urgent(gib=20), worker(1, ram=10), of, running(1, of, 1)) is None
    assert preempted(urgent(), worker(1, ram=10, cordoned=True), of, running(1, of, 1)) is None


def test_a_place_on_a_gpu_is_made_too() -> None:
    of = model(1, cpu_offloading=False)
    claim = Claim(vram={0: 22 * GIB})
    high = model(9, priority=1, preempts=True, cpu_offloading=False)
    there = [of, instance(1, of, on=1, claim=claim), instance(2, of, on=2, claim=claim)]
    snapshot = world(worker(1, gpus=[gpu(0)]), worker(2, gpus=[gpu(0), gpu(1, 2)]), high, *there)
    request = ask(high, facts_of("llama-3.1-8b"), instance=instance(9, high))
    found = preempt(request, snapshot)
    assert found is not None
    assert [one.id for one in found.victims] == [2]
    assert (found.placement.worker_id, found.placement.gpu_indexes) == (2, (0,))


ZONE = AntiAffinity(required=(AntiAffinityTerm(models=("m*",), topology_key="zone"),))


def _zone_of_two(of: Model, high: Model, **fields: Any) -> Snapshot:
    """``of`` runs on a worker where ``high`` may not be, in the zone of one where it may."""
    other = worker(1, ram=20, cordoned=True, labels={"zone": "a"})
    return world(other, worker(2, ram=10, labels={"zone": "a"}), of, high, running(1, of, 1, **fields))


@pytest.mark.parametrize(
    ("of", "high"),
    [(command(1, 4), urgent(anti_affinity=ZONE)), (command(1, 4, anti_affinity=ZONE), urgent())],
    ids=["its own", "of the other"],
)
def test_what_it_must_not_be_beside_ends_on_other_workers_too(of: Model, high: Model) -> None:
    snapshot = _zone_of_two(of, high)
    found = preempt(asked(high), snapshot)
    assert found is not None
    assert ([one.id for one in found.victims], found.placement.worker_id) == ([1], 2)
    assert found.sentence(snapshot) == "Waits for 1 instance of lower priority to end on node-a: m1-1"
    assert confirmed(found, snapshot) == found


def test_of_what_it_must_not_be_beside_as_many_end_as_that_takes() -> None:
    of, high = command(1, 4), urgent(anti_affinity=ZONE)
    more = [worker(3, ram=20, labels={"zone": "a"}), running(2, of, 1), running(3, of, 3), running(4, of, 3)]
    found = preempt(asked(high), _zone_of_two(of, high).changed(*more))
    assert found is not None
    assert sorted(one.id for one in found.victims) == [1, 2, 3, 4]
    free = worker(4, ram=10, labels={"zone": "b"}, cordoned=False)
    beside = running(5, of, 4)
    apart = preempt(asked(high), _zone_of_two(of, high).changed(*more, free, beside))
    assert apart is not None
    assert [one.id for one in apart.victims] == [5]


def test_what_ends_on_another_worker_is_waited_for_where_it_must_not_be_beside_it() -> None:
    of, high = command(1, 4), urgent(anti_affinity=ZONE)
    snapshot = _zone_of_two(of, high, deleted_at=NOW)
    found = preempt(asked(high), snapshot)
    assert found is not None
    assert (found.victims, [one.id for one in found.awaited]) == ((), [1])
    assert found.sentence(snapshot) == "Waits for 1 instance of lower priority to end on node-a: m1-1"


def test_a_gang_ends_as_a_whole_and_makes_room_on_each_of_its_workers() -> None:
    of = command(1, 8)
    gang = instance(1, of, on=1, claim=Claim(ram=8 * GIB))
    assert gang.placement is not None
    follower = attrs.evolve(gang.placement.share(0), worker_id=2)
    gang = attrs.evolve(gang, placement=attrs.evolve(gang.placement, subordinates=(follower,)))
    high = urgent(replicas=2)
    snapshot = world(worker(1, ram=10), worker(2, ram=10), of, high, gang)
    first = preempt(asked(high, 500), snapshot)
    assert first is not None
    assert [one.id for one in first.victims] == [1]
    second = preempt(asked(high, 501), first.carried_out(snapshot))
    assert second is not None, "what it held on the other worker is enough for the next one"
    assert (second.victims, [one.id for one in second.awaited]) == ((), [1])
    assert {first.placement.worker_id, second.placement.worker_id} == {1, 2}


def test_two_never_get_the_place_of_one() -> None:
    of, high = command(1, 8), urgent(replicas=2)
    there = [running(key, of, key) for key in (1, 2)]
    snapshot = world(worker(1, ram=10), worker(2, ram=10), of, high, *there)
    first = preempt(asked(high, 500), snapshot)
    assert first is not None
    after = first.carried_out(snapshot)
    second = preempt(asked(high, 501), after)
    assert second is not None
    assert [one.id for one in (*first.victims, *second.victims)] == [2, 1]
    assert preempt(asked(high, 502), second.carried_out(after)) is None


def test_what_is_ending_is_waited_for() -> None:
    of, high = command(1, 8), urgent()
    ending = running(1, of, 1, deleted_at=NOW)
    snapshot = world(worker(1, ram=10), worker(2, ram=10), of, high, ending, running(2, of, 2))
    found = preempt(asked(high), snapshot)
    assert found is not None
    assert (found.victims, [one.id for one in found.awaited]) == ((), [1])
    assert found.sentence(snapshot) == "Waits for 1 instance of lower priority to end on node-a: m1-1"


def test_a_place_that_is_kept_is_kept_from_those_below_and_not_from_those_above() -> None:
    of, high = command(1, 8), urgent()
    snapshot = world(worker(1, ram=10), of, high, running(1, of, 1))
    found = preempt(asked(high), snapshot)
    assert found is not None
    emptied = found.carried_out(snapshot).changed(without=[1])
    below, above_it = command(2, 4, priority=49), command(3, 4, priority=51)
    assert not isinstance(decide(asked(below, 501), above(49, emptied)), Placement)
    assert isinstance(decide(asked(above_it, 502), above(51, emptied)), Placement)
    waits = emptied.instances[500]
    kept = preempt(ask(high, instance=waits, engine_name="custom"), emptied)
    assert kept is not None
    assert kept.is_kept


def test_what_was_decided_holds_until_it_is_not_needed_any_more() -> None:
    of, high = command(1, 8), urgent()
    there = [worker(1, ram=10), of, high, running(1, of, 1)]
    found = preempt(asked(high), world(*there))
    assert found is not None
    assert confirmed(found, world(*there)) == found
    for change in (
        [*there, worker(1, ram=30)],
        [*there, worker(1, ram=10, cordoned=True)],
        [*there, attrs.evolve(of, preemptible=False)],
        [*there, attrs.evolve(of, priority=50)],
        there[:-1],
    ):
        assert confirmed(found, world(*change)) is None


def test_it_is_explained_who_ends_for_whom() -> None:
    of, high, low = command(1, 8), urgent(), command(2, 4)
    there = [worker(1, ram=10), of, high, low, running(1, of, 1)]
    found = preempt(asked(high), world(*there))
    assert found is not None
    after = found.carried_out(world(*there))
    waits = instance(501, low, displaced_by="model high (priority 50)")

    def note(one: ModelInstance, snapshot: Snapshot = after) -> str:
        return explain(snapshot.models[one.model_id], one, snapshot, None).note

    assert note(after.instances[500]) == "Waits for 1 instance of lower priority to end on node-a: m1-1"
    assert note(waits) == (
        "Made room for model high (priority 50). What ends makes room for m50-500, of a priority no lower than its own"
    )
    alone = world(worker(1, ram=10), command(1, 8, preemptible=False), high, running(1, of, 1))
    assert note(instance(500, high), alone).startswith("All that may end for it, being of lower priority,")


@st.composite
def towns(draw: st.DrawFn) -> tuple[Snapshot, list[PlacementRequest]]:
    """Workers with models of random priorities on them, and some that wait."""
    workers = [worker(key, ram=draw(st.integers(6, 20))) for key in range(1, draw(st.integers(1, 3)) + 1)]
    snapshot = world(*workers)
    waiting: list[PlacementRequest] = []
    key = 0
    for number in range(1, draw(st.integers(2, 5)) + 1):
        of = command(
            number,
            gib=draw(st.integers(1, 8)),
            priority=draw(st.integers(-2, 2)),
            preempts=draw(st.booleans()),
            preemptible=draw(st.integers(0, 4)) > 0,
        )
        snapshot = snapshot.changed(of)
        for _ in range(draw(st.integers(1, 3))):
            key += 1
            one = instance(key, of)
            request = ask(of, instance=one, engine_name="custom")
            found = decide(request, snapshot)
            if isinstance(found, Placement) and draw(st.integers(0, 3)):
                state = draw(st.sampled_from([InstanceState.RUNNING, InstanceState.STARTING]))
                ends = draw(st.integers(0, 5)) == 0
                placed = attrs.evolve(one, placement=found, state=state, deleted_at=NOW if ends else None)
                snapshot = snapshot.changed(placed)
            else:
                snapshot = snapshot.changed(one)
                waiting.append(request)
    # One for which several have to end.
    large = urgent(gib=draw(st.integers(6, 16)), priority=3)
    waiting.append(asked(large))
    return snapshot.changed(large, instance(500, large)), waiting


def _fits_without(request: PlacementRequest, snapshot: Snapshot, ids: Iterable[int]) -> bool:
    return isinstance(decide(request, snapshot.changed(without=set(ids))), Placement)


def _assert_lawful(request: PlacementRequest, found: Preemption, snapshot: Snapshot) -> None:
    victims = {one.id for one in found.victims}
    ending = {one.id for one in snapshot.instances.values() if one.deleted_at is not None}
    for one in found.victims:
        assert snapshot.models[one.model_id].preemptible
        assert priority_of(one, snapshot) < request.model.priority
        assert one.deleted_at is None
    assert _fits_without(request, snapshot, victims | ending)
    for key in victims:
        assert not _fits_without(request, snapshot, (victims | ending) - {key}), "none ends in vain"
    confirmation = confirmed(found, snapshot)
    assert confirmation is not None
    assert confirmation.victims == found.victims


@law(40)
@given(town=towns(), shuffle=st.randoms(use_true_random=False))
def test_never_more_ends_than_it_takes(town: tuple[Snapshot, list[PlacementRequest]], shuffle: Any) -> None:
    snapshot, waiting = town
    for request in waiting:
        if isinstance(decide(request, snapshot), Placement):
            continue
        found = preempt(request, snapshot)
        if found is None:
            continue
        _assert_lawful(request, found, snapshot)
        turned = [*snapshot.workers.values()]
        shuffle.shuffle(turned)
        again = world(*turned, *snapshot.models.values(), *snapshot.instances.values())
        assert preempt(request, again) == found


@law(12)
@given(cluster=clusters(), wanted=st.lists(wishes, min_size=1, max_size=5), wish=wishes)
def test_on_devices_and_workers_together_never_more_ends_than_it_takes(
    cluster: list[Any], wanted: list[dict[str, Any]], wish: dict[str, Any]
) -> None:
    snapshot = world(*cluster)
    for key, one in enumerate(wanted, start=1):
        question = deployed(key, one)
        found = decide(question, snapshot)
        snapshot = snapshot.changed(question.model)
        if isinstance(found, Placement):
            placed = attrs.evolve(instance(key, question.model), placement=found)
            snapshot = grown(snapshot, placed)
    request = deployed(99, wish)
    of = attrs.evolve(request.model, priority=1, preempts=True)
    request = attrs.evolve(request, model=of, instance=instance(99, of))
    if not isinstance(decide(request, snapshot), Placement):
        done = preempt(request, snapshot.changed(of))
        if done is not None:
            _assert_lawful(request, done, snapshot.changed(of))


@law(25)
@given(town=towns())
def test_whoever_waits_comes_to_rest(town: tuple[Snapshot, list[PlacementRequest]]) -> None:
    """Those that make room wait again, and may have others end; that goes down in priority, and so it ends."""
    snapshot, _ = town
    for _turn in range(100):
        ending = [one.id for one in snapshot.instances.values() if one.deleted_at is not None]
        snapshot, moved = _turned(snapshot)
        assert _crowded(_placed_only(snapshot)) == []
        if not moved and not ending:
            break
        # All that was ending has ended; its model's replica waits again.
        back = [attrs.evolve(snapshot.instances[key], deleted_at=None, placement=None) for key in ending]
        snapshot = snapshot.changed(
            *(attrs.evolve(one, state=InstanceState.PENDING, id=one.id) for one in back)
        )
    else:
        raise AssertionError("it goes on and on")
    assert not any(one.reserved for one in snapshot.instances.values()), "nobody keeps what nobody frees"


def _turned(snapshot: Snapshot) -> tuple[Snapshot, bool]:
    """The snapshot after one pass of the scheduler, and whether it did anything."""
    moved = False
    waiting = [one for one in snapshot.instances.values() if one.placement is None]
    for one in sorted(waiting, key=lambda one: (-priority_of(one, snapshot), one.id)):
        of = snapshot.models[one.model_id]
        request = ask(of, instance=one, engine_name="custom")
        found = decide(request, above(of.priority, snapshot))
        if isinstance(found, Placement):
            placed = attrs.evolve(one, placement=found, reserved=None, state=InstanceState.RUNNING)
            snapshot, moved = snapshot.changed(placed), True
            continue
        made = preempt(request, snapshot)
        if made is None:
            snapshot = snapshot.changed(attrs.evolve(one, reserved=None))
            continue
        moved = moved or not made.is_kept
        snapshot = made.carried_out(snapshot)
    return snapshot, moved


def _placed_only(snapshot: Snapshot) -> Snapshot:
    return snapshot.changed(*(attrs.evolve(one, reserved=None) for one in snapshot.instances.values()))

"""Workers that are alike are looked at once, and what was found is kept: neither may change an answer."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.artifact import FileState
from gpustack.domain.device import DeviceMemory
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.memory_use import MemoryRecord, MemorySample
from gpustack.domain.model import GpuSelector, Model, PlacementStrategy
from gpustack.domain.snapshot import ClaimIndex, Snapshot
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.policy.decision import decide
from gpustack.policy.estimate.learnt import KnownRuns
from gpustack.policy.fits import one_gpu, several_gpus
from gpustack.policy.gang import most_alike
from gpustack.policy.hope import Hopes
from gpustack.policy.look import looks_of
from gpustack.policy.placement import PlacementRequest, Rejection, Unschedulable
from gpustack.policy.schedule import place
from gpustack.policy.worker_class import alike, classes_of
from tests.laws import law

from .shapes import facts_of
from .test_laws import _some, equal_wishes, model_files, wishes, workers
from .worlds import RPC_BUILD, ask, gpu, instance, model, worker, world

SMALL, LARGE = facts_of("llama-3.2-1b"), facts_of("llama-3.3-70b")


@st.composite
def fleets(draw: st.DrawFn) -> list[Worker]:
    """Machines of few kinds, some of each."""
    kinds = [draw(workers(1)) for _ in range(draw(st.integers(1, 3)))]
    count = draw(st.integers(2, 8))
    chosen = [draw(st.sampled_from(kinds)) for _ in range(count)]
    return [
        attrs.evolve(one, id=key, name=f"n{key}", worker_uuid=f"u{key}", ip=f"10.0.0.{key}")
        for key, one in enumerate(chosen, start=1)
    ]


TAUGHT = st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), max_size=2)
"""What runs took of what was estimated for the terms that can be learnt."""


def taught(question: PlacementRequest, shares: list[float]) -> PlacementRequest:
    """With runs of its kind on one GPU named G, and on the CPU, where there are any shares."""
    total = question.demand.total_layers
    plans = [question.demand.plan((1.0,), total), question.demand.plan((), 0)] if shares else []
    records = [
        MemoryRecord(
            id=number,
            key=str(number),
            engine=plan.engine,
            build=build,
            architecture=plan.architecture,
            device=device,
            settings=plan.settings,
            samples=tuple(
                MemorySample(
                    at=datetime(2026, 1, 2, tzinfo=UTC),
                    instance_id=run,
                    worker_id=1,
                    estimated=plan.estimated,
                    measured={name: int(share * size) for name, size in plan.estimated.items()},
                )
                for run, share in enumerate(shares)
            ),
        )
        for number, (build, device, plan) in enumerate(
            (build, device, plan)
            for build in ("", "8000")
            for device, plan in zip(("G", ""), plans, strict=False)
            if plan is not None
        )
    ]
    return attrs.evolve(question, known=KnownRuns(tuple(records)))


def anew(snapshot: Snapshot) -> Snapshot:
    """The same, of which nothing is known yet."""
    return Snapshot(snapshot.revision, {name: dict(table) for name, table in snapshot.tables.items()})


def names(outcome: Placement | tuple[Rejection, ...]) -> object:
    """The place; of reasons, the workers that they are of."""
    if isinstance(outcome, Placement):
        return outcome
    found = [name for reason in outcome if reason.worker_id for name in (reason.worker, *reason.others)]
    assert len(found) == len(set(found))
    return set(found)


def upset(snapshot: Snapshot, number: int) -> Snapshot:
    """The snapshot after something else happened to one of its workers or instances."""
    key = sorted(snapshot.workers)[number % len(snapshot.workers)]
    there = snapshot.workers[key]
    match number % 4:
        case 0:
            return snapshot.changed(attrs.evolve(there, cordoned=not there.cordoned))
        case 1:
            return snapshot.changed(attrs.evolve(there, name=f"{there.name}x"))
        case 2 if snapshot.instances and number % 8 == 6:
            first = snapshot.instances[min(snapshot.instances)]
            kept = first.placement or first.reserved
            return snapshot.changed(attrs.evolve(first, placement=None, reserved=kept))
        case 2 if snapshot.instances:
            return snapshot.changed(without=[min(snapshot.instances)])
        case 3 if snapshot.files and number % 8 == 3:
            file = snapshot.files[min(snapshot.files)]
            ready = file.state is FileState.READY
            return snapshot.changed(attrs.evolve(file, state=FileState.ERROR if ready else FileState.READY))
    return snapshot.changed(attrs.evolve(there, labels={"zone": "a"}))


@law(15)
@given(
    fleet=fleets(),
    wanted=st.lists(wishes | equal_wishes, min_size=1, max_size=2),
    asked=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 99)), min_size=1, max_size=6),
    shares=TAUGHT,
    data=st.data(),
)
def test_what_is_kept_and_what_is_worked_out_anew_are_the_same(
    fleet: list[Worker],
    wanted: list[dict[str, Any]],
    asked: list[tuple[int, int]],
    shares: list[float],
    data: st.DataObject,
) -> None:
    questions = [taught(one, shares) for one in _some(wanted)]
    files = data.draw(model_files(fleet, questions))
    snapshot = world(*fleet, *(one.model for one in questions), *files)
    for number, (which, chance) in enumerate(asked, start=1):
        question = questions[which % len(questions)]
        replica = instance(number, question.model)
        question = attrs.evolve(question, instance=replica)
        fresh = anew(snapshot)
        assert classes_of(snapshot).groups == classes_of(fresh).groups
        outcome = place(question, snapshot)
        assert outcome == place(question, fresh)
        alone = decide(question, fresh, among=fresh.workers.values())
        assert names(decide(question, fresh)) == names(alone)
        if isinstance(outcome, Placement):
            snapshot = snapshot.changed(attrs.evolve(replica, placement=outcome))
        if chance % 3 == 0:
            snapshot = upset(snapshot, chance)
        assert claims(snapshot.claims) == claims(ClaimIndex.of(snapshot.instances))


@law(25)
@given(
    fleet=fleets(),
    wanted=wishes,
    strategy=st.sampled_from(PlacementStrategy),
    way=st.sampled_from([one_gpu, several_gpus]),
    held=st.lists(st.tuples(st.integers(1, 2), st.integers(1, 8), st.integers(1, 9)), max_size=8),
    shares=TAUGHT,
)
def test_no_worker_offers_more_than_was_hoped_for(
    fleet: list[Worker],
    wanted: dict[str, Any],
    strategy: PlacementStrategy,
    way: ModuleType,
    held: list[tuple[int, int, int]],
    shares: list[float],
) -> None:
    """Workers of which less is hoped for than was found elsewhere are not looked at."""
    question = taught(_some([wanted])[0], shares)
    of = attrs.evolve(question.model, placement_strategy=strategy)
    question = attrs.evolve(question, model=of)
    others = (
        instance(number, of if which == 1 else model(99), on=key, claim=Claim(vram={0: size * GIB}))
        for number, (which, key, size) in enumerate(held, start=1)
        if key <= len(fleet)
    )
    fleet = [attrs.evolve(one, condition=Condition(state=WorkerState.READY), cordoned=False) for one in fleet]
    snapshot = world(*fleet, of, *others)
    looks = looks_of(question, snapshot)
    assert looks is not None
    for there in fleet:
        hopes = Hopes(way, looks.variants, looks._drive).of([(there,)], snapshot)
        look = looks.at(there, snapshot)
        offered = None if look.objection else look.ask(way, looks.variants, snapshot).best
        if offered is not None:
            assert hopes and hopes[0] < offered.order


def claims(index: ClaimIndex) -> object:
    return {key: held for key, held in index.by_worker.items() if held}


def groups(question: PlacementRequest, snapshot: Snapshot) -> list[list[int]]:
    return [[one.id for one in group] for group in alike(question, snapshot)]


def eight(*gpus: Any, **fields: Any) -> Iterable[Worker]:
    return (worker(key, gpus=gpus or [gpu(0), gpu(1)], **fields) for key in range(1, 9))


M = model(1)


def test_workers_that_are_alike_but_for_their_names_are_together() -> None:
    snapshot = world(*eight(), M)
    assert groups(ask(M, SMALL), snapshot) == [[1, 2, 3, 4, 5, 6, 7, 8]]


def test_which_of_two_equal_gpus_is_taken_tells_no_workers_apart() -> None:
    other = model(2)
    held = [instance(key, other, on=key, claim=Claim(vram={key % 2: GIB})) for key in (1, 2)]
    assert groups(ask(M, SMALL), world(*eight(), M, other, *held)) == [[1, 2], [3, 4, 5, 6, 7, 8]]


def test_what_is_free_and_how_many_share_it_tells_workers_apart() -> None:
    other = model(2)
    held = [
        instance(1, other, on=1, claim=Claim(ram=GIB)),
        instance(2, other, on=2, claim=Claim()),
        instance(3, other, on=3, claim=Claim(vram={0: 2 * GIB})),
        instance(4, other, on=3, claim=Claim()),
        instance(5, other, on=4, claim=Claim(vram={1: GIB})),
        instance(6, other, on=4, claim=Claim(vram={1: GIB})),
    ]
    assert groups(ask(M, SMALL), world(*eight(), M, other, *held)) == [[1], [2], [3], [4], [5, 6, 7, 8]]


def test_what_others_use_tells_workers_apart() -> None:
    """Also where as much is free: the sentence says whose it is."""
    shares = {1: (GIB, None), 2: (None, GIB), 3: (0, 0), 4: (GIB, 0)}
    fleet = [
        worker(key, gpus=[gpu(0, memory=DeviceMemory(total=24 * GIB, foreign=foreign, overrun=overrun))])
        for key, (foreign, overrun) in shares.items()
    ]
    assert groups(ask(M, SMALL), world(*fleet, worker(5, gpus=[gpu(0)]), M)) == [[1, 4], [2], [3, 5]]


def test_who_has_a_replica_or_was_picked_stands_alone() -> None:
    held = instance(1, M, on=3, claim=Claim(ram=GIB))
    assert groups(ask(M, SMALL), world(*eight(), M, held)) == [[1, 2, 4, 5, 6, 7, 8], [3]]

    picks = model(4, gpu_selector=GpuSelector(gpu_ids=("node-b:cuda:0",)))
    assert groups(ask(picks, SMALL), world(*eight(), picks)) == [[1, 3, 4, 5, 6, 7, 8], [2]]


def test_labels_count_where_they_are_selected() -> None:
    some = [
        worker(key, gpus=[gpu(0)], labels={"zone": "ab"[key % 2], "name": f"n{key}"}) for key in range(1, 5)
    ]
    zoned = model(2, worker_selector={"zone": "b"})
    snapshot = world(*some, M, zoned)
    assert groups(ask(M, SMALL), snapshot) == [[1, 2, 3, 4]]
    assert groups(ask(zoned, SMALL), snapshot) == [[1, 3], [2, 4]]


def test_a_refusal_counts_those_that_are_alike() -> None:
    few = world(*(worker(key, gpus=[gpu(0, 4)], ram=4) for key in range(1, 3)), M)
    many = world(*(worker(key, gpus=[gpu(0, 4)], ram=4) for key in range(1, 9)), M)
    for snapshot, said in ((few, "; so it is with node-b"), (many, "; so it is with 7 more workers")):
        outcome = place(ask(M, LARGE), snapshot)
        assert isinstance(outcome, Unschedulable)
        assert said in outcome.sentence
        assert "no better" not in outcome.sentence


def test_more_workers_that_are_alike_than_a_gang_can_have_are_still_counted() -> None:
    strict = model(1, cpu_offloading=False)
    there = [worker(key, name=f"n{key}", gpus=[gpu(0, 1.5)]) for key in range(1, 101)]
    outcome = place(ask(strict, LARGE), world(*there, strict))
    assert isinstance(outcome, Unschedulable)
    assert most_alike(ask(strict, LARGE)) < 100
    assert "each of 100 workers has no llama-server with RPC" in outcome.sentence


def test_an_instance_that_is_placed_counts_for_the_next_of_its_kind() -> None:
    """What was found for the first is kept, but not that its own claim was none."""
    strict = model(1, cpu_offloading=False)
    snapshot = world(*(worker(key, gpus=[gpu(0, 32)], build=RPC_BUILD) for key in (1, 2)), strict)
    first = instance(1, strict)
    placed = place(ask(strict, LARGE, instance=first), snapshot)
    assert isinstance(placed, Placement)
    snapshot = snapshot.changed(attrs.evolve(first, placement=placed))
    second = place(ask(strict, LARGE, instance=instance(2, strict)), snapshot)
    assert isinstance(second, Unschedulable)


def test_a_snapshot_that_follows_lets_go_of_the_former_one() -> None:
    snapshot = world(*eight(), M)
    following = snapshot.changed(attrs.evolve(snapshot.workers[1], cordoned=True))
    assert following.former is snapshot
    classes_of(following)
    assert following.former is None


def test_the_token_stays_while_nothing_changes_that_decisions_depend_on() -> None:
    snapshot = world(*eight(), M)
    there = snapshot.workers[1]
    heard = snapshot.changed(attrs.evolve(there, version=7))
    assert classes_of(heard).token is classes_of(snapshot).token
    renamed = snapshot.changed(attrs.evolve(there, name="other"))
    assert classes_of(renamed).token is not classes_of(snapshot).token
    assert classes_of(renamed).groups.keys() == classes_of(snapshot).groups.keys()
    older: Model = model(2)
    held = snapshot.changed(instance(5, older, on=1, claim=Claim(ram=GIB)))
    swapped = held.changed(without=[5]).changed(instance(6, older, on=1, claim=Claim(ram=GIB)))
    assert classes_of(swapped).groups.keys() == classes_of(held).groups.keys()
    assert classes_of(swapped).token is not classes_of(held).token


def test_many_changes_may_come_before_the_classes_are_asked_for() -> None:
    of = model(1)
    first = world(worker(1), worker(2), of)
    before = classes_of(first)
    snapshot = first
    for key in range(1, 1500):
        snapshot = snapshot.changed(instance(key, of))
    snapshot = snapshot.changed(instance(1, of, on=2, claim=Claim(ram=GIB)))
    now = classes_of(snapshot)
    assert now.keys[1] is before.keys[1]
    assert now.keys[2] == classes_of(world(worker(2), of, *snapshot.instances.values())).keys[2]
    assert snapshot.former is None

"""Laws of placement in worlds by a seed: a few workers with claims on them, and those that the benchmark measures."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.placement import LARGE, SMALL, cluster
from gpustack.domain.instance import Placement, claims_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Worker
from gpustack.policy.decision import decide
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.schedule import place
from tests.laws import law

from .chance import World, replica, world_of
from .worlds import ask, instance, model, world

seeds = st.integers(0, 1 << 32)


def fits(request: PlacementRequest, snapshot: Snapshot) -> bool:
    return isinstance(decide(request, snapshot), Placement)


def with_worker(here: World, rng: random.Random) -> Snapshot:
    other = world_of(rng.randrange(1 << 32))
    key = max(here.snapshot.workers) + 1
    new = next(iter(other.snapshot.workers.values()))
    return here.snapshot.changed(
        attrs.evolve(new, id=key, name=f"n{key}", worker_uuid=f"u{key}", ip=f"10.0.0.{key}")
    )


def with_gpu(here: World, rng: random.Random) -> Snapshot:
    there = rng.choice(list(here.snapshot.workers.values()))
    status, like = there.status, there.status.gpu_devices
    if there.status.memory.is_unified_memory or not like:
        return here.snapshot
    more = attrs.evolve(like[0], index=len(like), fault=None)
    status = attrs.evolve(status, gpu_devices=(*like, more))
    return here.snapshot.changed(attrs.evolve(there, status=status))


def with_memory(here: World, rng: random.Random) -> Snapshot:
    there = rng.choice(list(here.snapshot.workers.values()))
    memory = there.status.memory
    if memory.total is None:
        return here.snapshot
    more = attrs.evolve(memory, total=memory.total + rng.randint(1, 64) * GIB)
    return here.snapshot.changed(attrs.evolve(there, status=attrs.evolve(there.status, memory=more)))


def with_larger_gpu(here: World, rng: random.Random) -> Snapshot:
    there = rng.choice(list(here.snapshot.workers.values()))
    devices = list(there.status.gpu_devices)
    if not devices:
        return here.snapshot
    index = rng.randrange(len(devices))
    memory = devices[index].memory
    total = (memory.total or 0) + rng.randint(1, 48) * GIB
    devices[index] = attrs.evolve(devices[index], memory=attrs.evolve(memory, total=total))
    status = attrs.evolve(there.status, gpu_devices=tuple(devices))
    return here.snapshot.changed(attrs.evolve(there, status=status))


def without_claim(here: World, rng: random.Random) -> Snapshot:
    held = sorted(here.snapshot.instances)
    return here.snapshot.changed(without=[rng.choice(held)]) if held else here.snapshot


MORE: tuple[Callable[[World, random.Random], Snapshot], ...] = (
    with_worker,
    with_gpu,
    with_memory,
    with_larger_gpu,
    without_claim,
)


@law(25)
@given(seed=seeds)
def test_more_room_never_makes_unfit_what_fitted(seed: int) -> None:
    here, rng = world_of(seed), random.Random(seed)
    if not fits(here.request, here.snapshot):
        return
    for more in MORE:
        assert fits(here.request, more(here, rng)), more


@law(10)
@given(seed=seeds)
def test_who_is_told_in_which_order_and_how_often_changes_nothing(seed: int) -> None:
    here, rng = world_of(seed), random.Random(seed)
    first = place(here.request, here.snapshot)
    records = [*here.snapshot.workers.values(), *here.snapshot.models.values()]
    records += here.snapshot.instances.values()
    rng.shuffle(records)
    assert place(here.request, world(*records)) == first == place(here.request, here.snapshot)


@law(10)
@given(seed=seeds)
def test_what_is_placed_in_one_pass_is_claimed_without_conflict_and_within_what_is_free(seed: int) -> None:
    here, rng = world_of(seed, most=8), random.Random(seed)
    before = {key: here.snapshot.free(worker) for key, worker in here.snapshot.workers.items()}
    seen = claimed = here.snapshot
    for key in range(2, 10):
        request = replica(rng, key)
        outcome = decide(request, seen)
        if not isinstance(outcome, Placement):
            continue
        assert request.instance is not None
        seen = seen.changed(attrs.evolve(request.instance, placement=outcome))
        there = [claimed.workers[key] for key in sorted({key for key, _ in claims_of(outcome)})]
        again = decide(request, claimed, among=there)
        assert isinstance(again, Placement)
        claimed = claimed.changed(attrs.evolve(request.instance, placement=again))
    for snapshot in (seen, claimed):
        for key, worker in snapshot.workers.items():
            within(worker, snapshot, before[key].ram or 0, before[key].vram)


def within(worker: Worker, snapshot: Snapshot, ram: int, vram: dict[int, int]) -> None:
    """What new replicas claim on a worker is not more than was free there."""
    new = [claim for one, claim in snapshot.claims_on(worker.id) if one.id > 1000]
    unified = worker.status.memory.is_unified_memory
    host = sum(claim.ram + (sum(claim.vram.values()) if unified else 0) for claim in new)
    assert host <= ram
    for index in {index for claim in new for index in claim.vram}:
        assert sum(claim.vram.get(index, 0) for claim in new) <= vram[index]


@law(5)
@given(seed=seeds)
def test_the_worlds_of_the_benchmark_obey_them_too(seed: int) -> None:
    snapshot = cluster(40, seed)
    placed = snapshot
    for number, facts in enumerate((SMALL, LARGE, SMALL, LARGE), start=1):
        of = model(number)
        request = ask(of, facts, instance=instance(1_000_000 + number, of))
        outcome = decide(request, placed)
        assert isinstance(outcome, Placement)
        there = [placed.workers[key] for key, _ in claims_of(outcome)]
        assert isinstance(decide(request, placed, among=there), Placement)
        placed = placed.changed(attrs.evolve(request.instance, placement=outcome))
    shut = [attrs.evolve(worker, cordoned=True) for worker in list(placed.workers.values())[::2]]
    fewer = placed.changed(*shut)
    if fits(ask(model(9), LARGE), fewer):
        assert fits(ask(model(9), LARGE), placed)

"""What runs on several GPUs runs on those that are joined best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import pytest

from gpustack.domain.device import Device, DeviceLink, LinkKind
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.record import Record
from gpustack.domain.unit import GIB
from gpustack.policy import topology
from gpustack.policy.placement import Unschedulable
from gpustack.policy.schedule import place
from gpustack.policy.worker_class import alike

from .shapes import facts_of
from .worlds import ask, gpu, instance, model, worker, world

LARGE = facts_of("llama-3.3-70b")  # two GPUs of 24 GiB
OF = model(1)
PAIRS = {frozenset({0, 2}), frozenset({1, 3})}


def joined(
    count: int, ways: Mapping[frozenset[int], LinkKind], other: LinkKind = LinkKind.SYSTEM
) -> list[Device]:
    """GPUs of which the pairs named are joined in that way."""
    found = []
    for index in range(count):
        links = [
            DeviceLink(kind=ways.get(frozenset({index, to}), other), indexes=(to,), count=4)
            for to in range(count)
            if to != index
        ]
        found.append(gpu(index, links=tuple(links)))
    return found


def taken(*records: Record) -> tuple[int, tuple[int, ...]]:
    outcome = place(ask(OF, LARGE), world(OF, *records))
    assert isinstance(outcome, Placement), outcome
    return outcome.worker_id, outcome.gpu_indexes


def test_of_equal_gpus_those_with_the_vendors_own_links_are_taken() -> None:
    ways = dict.fromkeys(PAIRS, LinkKind.FABRIC)
    assert taken(worker(1, gpus=joined(4, ways))) == (1, (0, 2))
    held = instance(7, model(2), on=1, claim=Claim(vram={0: GIB}))
    assert taken(worker(1, gpus=joined(4, ways)), held) == (1, (1, 3))


def test_a_pcie_switch_goes_before_a_numa_node_and_that_before_another() -> None:
    near = {frozenset({1, 2}): LinkKind.NODE, frozenset({2, 3}): LinkKind.SWITCH}
    assert taken(worker(1, gpus=joined(4, near))) == (1, (2, 3))
    assert taken(worker(1, gpus=joined(4, {frozenset({1, 2}): LinkKind.NODE}))) == (1, (1, 2))


def test_more_parallel_links_are_nearer() -> None:
    there = joined(3, {frozenset({0, 1}): LinkKind.FABRIC, frozenset({1, 2}): LinkKind.FABRIC})
    wide = [
        attrs.evolve(one, links=tuple(attrs.evolve(link, count=18) for link in one.links))
        if one.index == 2
        else one
        for one in there
    ]
    first = attrs.evolve(
        wide[1],
        links=tuple(attrs.evolve(link, count=18 if link.indexes == (2,) else 4) for link in wide[1].links),
    )
    assert taken(worker(1, gpus=[wide[0], first, wide[2]])) == (1, (1, 2))


def test_where_nothing_is_known_the_first_are_taken() -> None:
    assert taken(worker(1, gpus=[gpu(index) for index in range(4)])) == (1, (0, 1))


def test_room_goes_before_links() -> None:
    """Only GPUs that are equally free are exchanged for each other."""
    held = instance(7, model(2), on=1, claim=Claim(vram={2: 3 * GIB}))
    there = worker(1, gpus=joined(3, {frozenset({1, 2}): LinkKind.FABRIC}))
    assert taken(there, held) == (1, (0, 1))


def test_of_workers_the_one_with_better_links_is_taken() -> None:
    apart = worker(1, gpus=joined(2, {}))
    near = worker(2, gpus=joined(2, {}, other=LinkKind.FABRIC))
    snapshot = world(OF, apart, near)
    assert taken(apart, near) == (2, (0, 1))
    assert [[one.id for one in group] for group in alike(ask(OF, LARGE), snapshot)] == [[1], [2]]
    small = place(ask(OF, facts_of("llama-3.2-1b")), snapshot)
    assert isinstance(small, Placement)
    assert small.worker_id == 1, "on one GPU links are of no use"


def test_a_worker_that_tells_of_hundreds_of_gpus_and_links_costs_placement_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of so many, each placement would try all of them with all, for whole minutes: the first are taken."""
    everything = DeviceLink(kind=LinkKind.SYSTEM, indexes=tuple(range(300)))
    many = tuple(gpu(index, 24, links=(everything,) * 300) for index in range(300))
    assert len(many[0].ways) == 64
    tried: list[int] = []
    distances = topology._distances

    def counted(devices: Sequence[Device]) -> Mapping[tuple[int, int], int]:
        tried.append(len(devices))
        return distances(devices)

    monkeypatch.setattr(topology, "_distances", counted)
    assert taken(worker(1, gpus=many)) == (1, (0, 1))
    assert tried == []
    assert taken(worker(1, gpus=many[:16])) == (1, (0, 1))
    assert set(tried) == {16}


def test_closeness_is_the_mean_over_the_pairs_of_a_type() -> None:
    ways = {frozenset({0, 1}): LinkKind.FABRIC, frozenset({1, 2}): LinkKind.SYSTEM}
    there = joined(3, ways, other=LinkKind.NODE)
    last = len(LinkKind) - 1
    node = 1 - LinkKind.NODE.distance / last
    assert worker(1, gpus=there).status.closeness == pytest.approx(100 * (1 + 0 + node) / 3)
    mixed = [*there, gpu(10_000, type="rocm", links=there[0].links)]
    assert worker(1, gpus=mixed).status.closeness == pytest.approx(100 * (1 + 0 + node) / 3)
    assert worker(1, gpus=[gpu(0)]).status.closeness == 0


def test_llama_cpp_gets_no_more_gpus_than_it_can_work_with() -> None:
    """Of 16 backends the processor is one: with more the engine ends with an assertion."""
    there = worker(1, gpus=[gpu(index, 4) for index in range(40)])
    outcome = place(ask(attrs.evolve(OF, cpu_offloading=False), LARGE), world(OF, there))
    assert isinstance(outcome, Unschedulable), outcome
    partly = place(ask(OF, LARGE), world(OF, there))
    assert isinstance(partly, Placement)
    assert len(partly.gpu_indexes) <= 15 and (partly.claim.offload_layers or 0) > 0

"""Engines that divide a model in equal shares, over the GPUs of several workers."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.model import GpuSelector, Model, PlacementStrategy
from gpustack.domain.ray import RayNodeStatus, RayState
from gpustack.domain.record import Record
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, EngineBuild, Kernel, Worker, WorkerState
from gpustack.policy.decision import decide
from gpustack.policy.placement import GangSettings, PlacementRequest
from gpustack.policy.schedule import Unschedulable, place
from gpustack.policy.seat import scores_of, seated

from .test_safetensors_placement import SOURCE, facts
from .worlds import ask, gpu, instance, model, worker, world

BUILD = EngineBuild(engine="vllm", version="0.32.0", origin="vllm on PATH", drives=("cuda",), on_cpu=False)
OLDER = attrs.evolve(BUILD, version="0.31.0")
ON_CPU = attrs.evolve(BUILD, version="0.32.0+cpu", drives=(), on_cpu=True)
LARGE = facts(60)  # 32 heads, 8 of keys: among 2, 4, 8, 16, … devices


def node(key: int, *gib: float, build: EngineBuild = BUILD, **fields: Any) -> Worker:
    gpus = [gpu(index, size, compute_capability="9.0") for index, size in enumerate(gib)]
    return worker(key, **{"gpus": gpus, "build": build, "ram": 256, **fields})


def deployed(*given: str, **fields: Any) -> Model:
    return model(**{"source": SOURCE, "backend": "vllm", "backend_parameters": given, **fields})


def picked(*ids: str, **fields: Any) -> Model:
    return deployed(gpu_selector=GpuSelector(gpu_ids=ids), **fields)


def question(of: Model, known: ModelFacts = LARGE) -> PlacementRequest:
    return ask(of, known, engine_name="vllm")


def placed(of: Model, *records: Record, known: ModelFacts = LARGE) -> Placement:
    outcome = place(question(of, known), world(*records))
    assert isinstance(outcome, Placement), outcome
    return outcome


def refused(of: Model, *records: Record, known: ModelFacts = LARGE) -> str:
    outcome = place(question(of, known), world(*records))
    assert isinstance(outcome, Unschedulable), outcome
    return outcome.sentence


def seats(found: Placement) -> list[tuple[int, tuple[int, ...]]]:
    return [(found.worker_id, found.gpu_indexes), *((s.worker_id, s.gpu_indexes) for s in found.subordinates)]


def test_as_many_gpus_on_each_of_as_few_workers_as_hold_it() -> None:
    found = placed(deployed(), *(node(key, 24, 24) for key in (1, 2, 3)))
    assert seats(found) == [(1, (0, 1)), (2, (0, 1))]
    assert found.note.startswith("Divided among 4 GPUs of workers node-a, node-b, 2 on each")


def test_every_gpu_holds_the_same_and_every_worker_the_memory_of_its_own_process() -> None:
    found = placed(deployed(), node(1, 24, 24), node(2, 40, 24))
    (other,) = found.subordinates
    assert len({*found.claim.vram.values(), *other.claim.vram.values()}) == 1
    assert found.claim.ram == other.claim.ram > 0
    assert found.claim.tensor_split == (), "shares mean nothing to it"
    assert found.claim.tensor_parallel == 2, (
        "layers are divided inside a worker, and workers hold different ones"
    )


def test_one_worker_goes_before_several() -> None:
    assert seats(placed(deployed(), node(1, 24, 24), node(2, 24, 24, 24, 24))) == [(2, (0, 1, 2, 3))]


def test_a_number_of_gpus_that_the_heads_cannot_be_divided_among_is_not_used() -> None:
    """Three workers with one GPU each: two are too few, and three do not divide 32 heads but may divide 32 layers."""
    known = attrs.evolve(LARGE, heads=(7,), kv_heads=(7,), total_layers=32)
    found = placed(deployed(), *(node(key, 24) for key in range(1, 9)), known=known)
    assert 1 + len(found.subordinates) == 7


def test_the_parameters_fix_the_number_of_gpus() -> None:
    there = [node(key, 80, 80, 80, 80) for key in (1, 2)]
    assert len(seats(placed(deployed("-tp=4", "-pp=2"), *there))) == 2
    assert seats(placed(deployed("-tp=2"), *there)) == [(1, (0, 1))]


def test_a_tensor_parallel_group_that_the_user_asks_for_is_not_torn_apart_unevenly() -> None:
    """Three on each would put one of every second pair on either worker."""
    there = [node(key, 40, 40, 40) for key in (1, 2, 3)]
    assert [len(indexes) for _, indexes in seats(placed(deployed("-tp=2", "-pp=3"), *there))] == [2, 2, 2]


def test_gpus_of_one_gang_are_of_one_type() -> None:
    def radeon(key: int) -> Worker:
        gpus = [gpu(index, 24, type="rocm", vendor="AMD") for index in range(2)]
        return node(key, gpus=gpus, build=attrs.evolve(BUILD, drives=("cuda", "rocm")))

    both = attrs.evolve(BUILD, drives=("cuda", "rocm"))
    assert "over several workers" in refused(deployed(), node(1, 24, 24, build=both), radeon(2))
    assert seats(placed(deployed(), node(1, 24, 24, build=both), radeon(2), radeon(3)))[0][0] == 2


def test_workers_with_different_versions_do_not_share_a_model_and_both_are_named() -> None:
    said = refused(deployed(), node(1, 24, 24), node(2, 24, 24, build=OLDER))
    assert (
        "node-a has 0.32.0 and node-b has 0.31.0: workers need the same build of vllm to share a model"
        in said
    )
    found = placed(deployed(), node(1, 24, 24), node(2, 24, 24, build=OLDER), node(3, 24, 24))
    assert [worker_id for worker_id, _ in seats(found)] == [1, 3]


@pytest.mark.parametrize(
    "out",
    [
        {"cordoned": True},
        {"draining": True},
        {"condition": Condition(state=WorkerState.NOT_READY, why="not heard")},
        {"ip": ""},
        {"ip": "127.0.0.1"},
        {"labels": {"zone": "b"}},
        {"status": attrs.evolve(node(2, 24, 24).status, kernel=Kernel(name="Windows"))},
    ],
    ids=lambda out: next(iter(out)),
)
def test_a_worker_that_cannot_take_part_does_not(out: dict[str, Any]) -> None:
    here = deployed(worker_selector={"zone": "a"})
    first = node(1, 24, 24, labels={"zone": "a"})
    assert refused(here, first, node(2, 24, 24, **{"labels": {"zone": "a"}, **out}))
    placed(here, first, node(2, 24, 24, labels={"zone": "a"}))


def test_what_others_hold_on_any_worker_is_not_given_away() -> None:
    held = instance(7, model(2), on=2, claim=Claim(vram={1: 12 * GIB}))
    assert "which 1 of 2 workers have" in refused(deployed(), node(1, 24, 24), node(2, 24, 24), held)
    found = placed(deployed(), node(1, 24, 24), node(2, 24, 24, 24), held)
    assert seats(found) == [(1, (0, 1)), (2, (0, 2))]


def test_the_deployment_may_refuse_and_other_engines_must_be_asked() -> None:
    strict = deployed(distributed_inference_across_workers=False)
    said = refused(strict, node(1, 24, 24), node(2, 24, 24))
    assert "allow it to be divided among workers (distributed_inference_across_workers)" in said


def test_gpus_picked_on_several_workers_are_used_if_as_many_on_each() -> None:
    chosen = picked("node-a:cuda:1", "node-b:cuda:0")
    found = placed(chosen, node(1, 24, 24), node(2, 24, 24), known=facts(16))
    assert seats(found) == [(1, (1,)), (2, (0,))]


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        (
            ("node-a:cuda:0", "node-a:cuda:1", "node-b:cuda:0"),
            "GPUs of several workers are selected (node-a, node-b), but not as many on each (2 on node-a, 1 on "
            "node-b); vllm needs the same number",
        ),
        (
            ("node-a:cuda:0", "node-b:rocm:0"),
            "but of several types (cuda on node-a, rocm on node-b); vllm needs one type",
        ),
        (("node-a:cuda:0", "node-b:cuda:7"), "worker node-b has no GPU cuda:7"),
        (
            tuple(f"node-a:cuda:{index}" for index in range(5)),
            "5 GPUs are selected, but the model can only be divided among 1, 2, 4, ",
        ),
    ],
)
def test_what_is_wrong_with_picked_gpus_is_said(ids: tuple[str, ...], why: str) -> None:
    said = refused(picked(*ids), node(1, *[24] * 5), node(2, 24, 24))
    assert why.lower() in said.lower()


def test_picked_gpus_that_are_too_small_are_measured() -> None:
    chosen = picked("node-a:cuda:0", "node-b:cuda:0")
    said = refused(chosen, node(1, 24, 24), node(2, 24, 24))
    assert "divided among 2 GPUs, 1 GPU on each of 2 workers, it needs " in said
    assert "worker node-b has only 1 of the 2 selected GPUs" in said


def test_on_ray_only_workers_whose_ray_is_up_take_part() -> None:
    def on_ray(key: int, state: RayState | None, message: str = "") -> Worker:
        there = None if state is None else RayNodeStatus(state=state, message=message)
        made = node(key, 24, 24)
        return attrs.evolve(made, status=attrs.evolve(made.status, ray=there))

    of = attrs.evolve(question(deployed()), gangs=GangSettings(ray=True))
    first, second = on_ray(1, RayState.UP), on_ray(2, RayState.UP)
    assert isinstance(place(of, world(first, second)), Placement)
    for other, why in (
        (on_ray(2, None), "worker node-b is not part of Ray: start it with --enable-ray"),
        (
            on_ray(2, RayState.DOWN, "port 40098 is taken"),
            "worker node-b is not part of Ray, which is down there (port 40098 is taken)",
        ),
    ):
        outcome = place(of, world(first, other))
        assert isinstance(outcome, Unschedulable)
        assert why in outcome.sentence


def test_spread_takes_empty_workers_and_binpack_full_ones() -> None:
    busy = [
        instance(7, model(2), on=1, claim=Claim(ram=GIB)),
        instance(8, model(2), on=2, claim=Claim(ram=GIB)),
    ]
    there = [*(node(key, 24, 24) for key in (1, 2, 3, 4)), *busy]
    spread = placed(deployed(placement_strategy=PlacementStrategy.SPREAD), *there)
    assert {worker_id for worker_id, _ in seats(spread)} == {3, 4}
    binpack = placed(deployed(placement_strategy=PlacementStrategy.BINPACK), *there)
    assert {worker_id for worker_id, _ in seats(binpack)} == {1, 2}


def test_the_score_of_a_gang_is_the_mean_of_its_members_the_main_one_counting_five_times() -> None:
    busy = instance(7, model(2), on=2, claim=Claim(ram=GIB))
    snapshot = world(node(1, 24, 24), node(2, 24, 24), busy)
    found = place(question(deployed()), snapshot)
    assert isinstance(found, Placement)
    seat = seated(found, snapshot)
    assert seat is not None
    spread, *others = scores_of(seat, question(deployed()), snapshot)
    alone = 100 + 2 * (10 / 3)
    assert (spread.name, spread.points) == ("spread", pytest.approx((alone * 5 + alone - 10) / 6))
    assert found.score == pytest.approx(sum(one.points for one in (spread, *others)))


def test_workers_without_gpus_share_a_model_that_none_holds() -> None:
    there = [node(key, build=ON_CPU, ram=48) for key in (1, 2, 3)]
    found = placed(deployed(), *there)
    assert [indexes for _, indexes in seats(found)] == [(), ()]
    assert found.claim.ram == found.subordinates[0].claim.ram <= 46 * GIB
    assert refused(deployed(cpu_offloading=False), *there)
    assert refused(deployed("-tp=8"), *there)


def test_a_number_of_devices_that_the_user_sets_is_of_workers_where_there_are_no_gpus() -> None:
    """One worker would hold it, but counts as one device."""
    there = [node(key, build=ON_CPU, ram=256) for key in (1, 2, 3)]
    assert len(seats(placed(deployed("-tp=2"), *there))) == 2
    assert len(seats(placed(deployed(), *there))) == 1
    alone = deployed("-tp=2", distributed_inference_across_workers=False)
    assert len(seats(placed(alone, *there))) == 1, (
        "engines do divide a model among the processors of one machine"
    )


def test_a_worker_more_like_the_others_is_the_smallest_change() -> None:
    assert "To make it fit: add a worker like node-a, to divide it among workers" in refused(
        deployed(), node(1, 24, 24)
    )


def test_the_place_is_the_same_when_decided_again_among_its_workers() -> None:
    """The claiming transaction does that."""
    there = [node(key, 24, 24) for key in range(1, 6)]
    snapshot = world(*there)
    first = decide(question(deployed()), snapshot)
    assert isinstance(first, Placement)
    touched = {worker_id for worker_id, _ in seats(first)}
    assert decide(question(deployed()), snapshot, among=[w for w in there if w.id in touched]) == first

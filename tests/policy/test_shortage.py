"""What is said when nothing fits, and the smallest change that would make it fit."""

from __future__ import annotations

import attrs
import pytest

from gpustack.domain.device import DeviceMemory
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.model import GpuSelector
from gpustack.domain.record import Record
from gpustack.domain.unit import GIB, MIB
from gpustack.domain.worker import Condition, SystemReserved, WorkerState
from gpustack.policy.explain import explain
from gpustack.policy.placement import MAKES_ROOM, PlacementRequest
from gpustack.policy.schedule import Unschedulable, place

from .shapes import facts_of
from .worlds import CPU_BUILD, ask, gpu, instance, model, worker, world

SMALL = facts_of("llama-3.2-1b")
MIDDLE = facts_of("llama-3.1-8b")
LARGE = facts_of("llama-3.3-70b")
HELD = [instance(key, model(2), on=1, claim=Claim(ram=gib * GIB)) for key, gib in ((7, 3), (8, 16))]


def refused(question: PlacementRequest, *records: Record) -> Unschedulable:
    outcome = place(question, world(*records))
    assert isinstance(outcome, Unschedulable), outcome
    return outcome


def test_the_sentence_names_what_is_short_by_how_much() -> None:
    other = instance(7, model(2), on=1, claim=Claim(ram=512 * MIB))
    said = refused(ask(model(), LARGE), worker(ram=24), other).sentence
    assert said.startswith(
        "Needs 42.6 GiB of memory, worker node-a has 21.5 GiB free of 24.0 GiB (2.0 GiB reserved, 512.0 MiB claimed): "
        "short by 21.1 GiB. To make it fit: "
    )


def test_the_nearest_worker_is_told_first_and_the_rest_are_counted() -> None:
    workers = [worker(key, ram=ram) for key, ram in enumerate((8, 20, 12, 16, 10), start=1)]
    said = refused(ask(model(), LARGE), *workers).sentence
    assert said.index("node-b") < said.index("node-d") < said.index("node-c")
    assert "node-a" not in said.split(" To make it fit")[0]
    assert "and 2 more workers are no better" in said


def test_a_cluster_without_workers_says_so() -> None:
    assert refused(ask(model(), SMALL)).sentence == "There is no worker yet. To make it fit: add a worker"


def test_where_no_worker_has_the_engine_the_change_is_to_install_it() -> None:
    question = ask(model(backend_version="0.0.1"), SMALL)
    old = attrs.evolve(CPU_BUILD, version="0.7.0")
    assert refused(question, worker(1, build=old), worker(2, build=old)).smallest_change == (
        "install llama.cpp 0.0.1 on worker node-a, or add a worker that has it"
    )
    assert refused(question, worker(1, build=old, cordoned=True)).smallest_change == "add a worker"
    has = attrs.evolve(CPU_BUILD, version="0.0.1")
    other = refused(question, worker(1, build=old), worker(2, ram=2.1, build=has)).smallest_change
    assert other is not None and "install" not in other


def test_a_gpu_that_is_too_small_is_measured_with_its_reserve() -> None:
    strict = model(cpu_offloading=False)
    reasons = refused(ask(strict, MIDDLE), worker(gpus=[gpu(0, 4)])).reasons
    assert (
        "of video memory, GPU 0 of worker node-a has 3.0 GiB free of 4.0 GiB (1.0 GiB reserved, 0 B claimed)"
        in (reasons[0].sentence)
    )


@pytest.mark.parametrize(
    ("records", "fields", "change"),
    [
        ((worker(ram=4), worker(2, cordoned=True)), {}, "uncordon worker node-b"),
        (
            (worker(ram=4), worker(2, draining=True)),
            {},
            "add a worker, or uncordon worker node-b, which ends its drain",
        ),
        (
            (worker(gpus=[gpu(0)]),),
            {"gpu_selector": GpuSelector(gpu_ids=("node-a:cuda:7",))},
            "select other GPUs, or none (gpu_selector)",
        ),
        (
            (worker(ram=4), worker(2, condition=Condition(state=WorkerState.NOT_READY))),
            {},
            "bring worker node-b back",
        ),
        ((worker(gpus=[gpu(0, 4)]),), {"cpu_offloading": False}, "allow CPU offloading (cpu_offloading)"),
        (
            (worker(ram=10),),
            {"backend_parameters": ("--ctx-size=32768",)},
            "lower --ctx-size from 32768 to 24320 or below",
        ),
        (
            (worker(ram=23), *HELD),
            {},
            "stop m2-8 (16.0 GiB) on node-a",
        ),
        (
            (worker(ram=8, system_reserved=SystemReserved(ram=4 * GIB)),),
            {},
            "lower the system reserve of worker node-a: ram from 4.0 GiB to 2.1 GiB or below",
        ),
        (
            (worker(),),
            {"worker_selector": {"gpu": "a100"}},
            "label worker node-a with gpu=a100, or add a worker so labelled",
        ),
        ((worker(ram=4),), {"worker_selector": {"gpu": "a100"}}, "add a worker labelled gpu=a100"),
    ],
)  # fmt: skip
def test_the_smallest_change_is_told(
    records: tuple[Record, ...], fields: dict[str, object], change: str
) -> None:
    assert refused(ask(model(**fields), MIDDLE), *records).smallest_change == change


def test_making_the_change_makes_it_fit() -> None:
    held = [instance(6 + n, model(2), on=1, claim=Claim(ram=n * GIB)) for n in (2, 6, 9)]
    question = ask(model(backend_parameters=("--ctx-size=1024",)), MIDDLE)
    change = refused(question, worker(ram=21), *held).smallest_change
    assert change == "stop m2-12 (6.0 GiB) on node-a"
    left = [record for record in held if record.name != "m2-12"]
    assert isinstance(place(question, world(worker(ram=21), *left)), Placement)


def test_when_nothing_small_helps_the_machine_that_would_is_described() -> None:
    change = refused(ask(model(), LARGE), worker(ram=8)).smallest_change
    assert change == "add a worker with 42.6 GiB of free memory, or choose a smaller file"


def test_a_new_generation_waits_for_the_old_one_in_its_place() -> None:
    edited = model(generation=2)
    old = instance(7, model(), on=1, claim=Claim(ram=18 * GIB))
    new = instance(8, edited)
    outcome = refused(ask(edited, MIDDLE, instance=new), worker(ram=24), old, new)
    assert outcome.smallest_change == f"wait until {MAKES_ROOM}"


def test_a_speculative_look_changes_nothing() -> None:
    here = worker(ram=8)
    snapshot = world(here)
    place(ask(model(), LARGE), snapshot)
    assert snapshot == world(worker(ram=8))


def test_a_build_that_cannot_drive_the_gpu_is_the_reason_where_the_cpu_is_forbidden() -> None:
    here = worker(gpus=[gpu(0)], build=attrs.evolve(CPU_BUILD, advice="Get a GPU build"))
    reasons = refused(ask(model(cpu_offloading=False), SMALL), here).reasons
    assert reasons[0].sentence.endswith("cannot drive its GPU (cuda). Get a GPU build")


def test_the_part_of_one_gpu_is_told_to_be_a_part() -> None:
    here = worker(gpus=[gpu(0), gpu(1, 16)])
    said = refused(ask(model(cpu_offloading=False), LARGE), here).sentence
    assert "of video memory for its share among 2 GPUs, GPU" in said


def test_memory_that_others_use_is_named() -> None:
    memory = DeviceMemory(total=24 * GIB, foreign=12 * GIB, overrun=2 * GIB)
    holder = instance(7, model(2), on=1, claim=Claim(vram={0: 4 * GIB}))
    strict = model(cpu_offloading=False)
    there = worker(gpus=[gpu(0, memory=memory)])
    said = refused(ask(strict, MIDDLE), there, holder).sentence
    assert (
        "GPU 0 of worker node-a has 5.0 GiB free of 24.0 GiB (1.0 GiB reserved, 4.0 GiB claimed, 12.0 GiB of it used "
        "by programs that are not GPUStack's, 2.0 GiB of it taken by engines beyond their claims)"
    ) in said
    alone = worker(gpus=[gpu(0, memory=DeviceMemory(total=24 * GIB, foreign=12 * GIB))])
    assert not explain(strict, instance(1, strict), world(alone, strict), MIDDLE).final

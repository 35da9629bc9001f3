"""Where replicas go, in small worlds."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpustack.domain.device import DeviceMemory
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.model import GpuSelector, PlacementStrategy
from gpustack.domain.record import Record
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, WorkerState
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.schedule import Unschedulable, place

from .shapes import facts_of
from .worlds import CPU_BUILD, ask, gpu, instance, model, worker, world

SMALL = facts_of("llama-3.2-1b")  # about 1.4 GiB
MIDDLE = facts_of("llama-3.1-8b")  # about 6 GiB, and 1 GiB for each further request at a time
LARGE = facts_of("llama-3.3-70b")  # about 42 GiB


def placed(question: PlacementRequest, *records: Record) -> Placement:
    outcome = place(question, world(*records))
    assert isinstance(outcome, Placement), outcome
    return outcome


def refused(question: PlacementRequest, *records: Record) -> str:
    outcome = place(question, world(*records))
    assert isinstance(outcome, Unschedulable), outcome
    return outcome.sentence


def test_a_worker_without_gpus_runs_it_on_the_cpu_and_claims_memory() -> None:
    found = placed(ask(model(), MIDDLE), worker())
    assert found.gpu_indexes == ()
    assert found.claim.vram == {}
    assert 8 * GIB < found.claim.ram < 10 * GIB
    assert (found.claim.offload_layers, found.claim.total_layers) == (0, 33)
    assert found.note == ""


def test_a_gpu_takes_all_layers_and_the_host_keeps_little() -> None:
    found = placed(ask(model(), MIDDLE), worker(gpus=[gpu(0), gpu(1)]))
    assert found.gpu_indexes in ((0,), (1,))
    assert found.claim.offload_layers == found.claim.total_layers == 33
    assert found.claim.ram < GIB
    assert 8 * GIB < sum(found.claim.vram.values()) < 10 * GIB


@pytest.mark.parametrize(("gib", "slots"), [(24, 4), (12, 4), (9, 2), (7, 1)])
def test_as_many_requests_at_a_time_as_have_room_of_their_own(gib: float, slots: int) -> None:
    here = worker(gpus=[gpu(0, gib)])
    found = placed(ask(model(), MIDDLE), here)
    assert (found.gpu_indexes, found.claim.slots) == ((0,), slots)
    one = placed(ask(model(backend_parameters=("-np", str(slots))), MIDDLE), here)
    assert one.claim == found.claim


def test_a_further_gpu_is_not_taken_for_further_requests_at_a_time() -> None:
    found = placed(ask(model(), LARGE), worker(gpus=[gpu(i) for i in range(4)]))
    assert (len(found.gpu_indexes), found.claim.slots) == (2, 1)


def test_a_layer_on_a_gpu_goes_before_further_requests_at_a_time() -> None:
    found = placed(ask(model(), LARGE), worker(gpus=[gpu(0)]))
    assert found.claim.slots == 1


def test_a_need_that_is_guessed_has_no_number_of_requests() -> None:
    from gpustack.domain.facts import FileFormat, ModelFacts

    sized = ModelFacts(format=FileFormat.GGUF, file_size=GIB)
    assert placed(ask(model(), sized), worker()).claim.slots is None


def test_a_build_that_drives_no_gpu_claims_none_and_says_why_and_what_to_do() -> None:
    found = placed(ask(model(), MIDDLE), worker(gpus=[gpu(0)], build=CPU_BUILD))
    assert found.gpu_indexes == ()
    assert found.claim.vram == {}
    assert found.note == (
        "Runs on the CPU, no GPU is claimed: llama.cpp (embedded xllamacpp 1) on worker node-a cannot drive its GPU "
        "(cuda). Install a wheel built for CUDA"
    )


def test_a_worker_whose_build_drives_its_gpu_goes_before_one_whose_build_does_not() -> None:
    found = placed(
        ask(model(), MIDDLE), worker(1, ram=512, gpus=[gpu(0)], build=CPU_BUILD), worker(2, gpus=[gpu(0)])
    )
    assert (found.worker_id, found.gpu_indexes) == (2, (0,))


def test_what_outgrows_one_gpu_is_divided_among_as_few_as_hold_it() -> None:
    found = placed(ask(model(), LARGE), worker(gpus=[gpu(i) for i in range(4)]))
    assert len(found.gpu_indexes) == 2
    assert len(found.claim.tensor_split) == 2
    assert found.claim.offload_layers == 81


def test_gpus_of_different_types_do_not_work_together() -> None:
    mixed = worker(gpus=[gpu(0), gpu(1, type="rocm", vendor="AMD")])
    both = attrs.evolve(mixed.status.engines[0], drives=("cuda", "rocm"))
    mixed = attrs.evolve(mixed, status=attrs.evolve(mixed.status, engines=(both,)))
    assert len(placed(ask(model(), LARGE), mixed).gpu_indexes) == 1


def test_what_outgrows_all_gpus_leaves_layers_to_the_cpu_and_says_so() -> None:
    found = placed(ask(model(), LARGE), worker(gpus=[gpu(0)]))
    assert found.gpu_indexes == (0,)
    assert 0 < (found.claim.offload_layers or 0) < 81
    assert "of 81 layers are on GPU 0, the others on the CPU" in found.note


def test_partial_offload_takes_as_many_layers_as_fit() -> None:
    here = worker(gpus=[gpu(0)])
    found = placed(ask(model(), LARGE), here)
    one_more = ask(model(), LARGE).demand.devices((1.0,), (found.claim.offload_layers or 0) + 1)
    assert found.claim.vram[0] <= 23 * GIB < one_more.vram[0]


def test_without_cpu_offloading_it_waits_for_a_gpu() -> None:
    strict = model(cpu_offloading=False)
    assert "cpu_offloading" in refused(ask(strict, LARGE), worker(gpus=[gpu(0)]))
    assert "must not run on the CPU" in refused(ask(strict, SMALL), worker())


@pytest.mark.parametrize(
    ("layers", "gpus", "offloaded"), [("0", (), 0), ("20", (0,), 20), ("33", (0,), 33), ("99", (0,), 33)]
)
def test_the_users_number_of_layers_is_kept(layers: str, gpus: tuple[int, ...], offloaded: int) -> None:
    found = placed(ask(model(backend_parameters=("-ngl", layers)), MIDDLE), worker(gpus=[gpu(0)]))
    assert (found.gpu_indexes, found.claim.offload_layers) == (gpus, offloaded)


def test_the_users_split_decides_how_many_gpus_and_their_shares() -> None:
    found = placed(
        ask(model(backend_parameters=("-ts=3,1",)), MIDDLE), worker(gpus=[gpu(i) for i in range(3)])
    )
    first, second = found.claim.vram.values()
    assert found.claim.tensor_split == (3000, 1000)
    assert first > 1.5 * second


def test_gpus_picked_by_hand_are_the_ones_used() -> None:
    chosen = model(gpu_selector=GpuSelector(gpu_ids=("node-b:cuda:1",)))
    found = placed(ask(chosen, MIDDLE), worker(1, gpus=[gpu(0)]), worker(2, gpus=[gpu(0), gpu(1)]))
    assert (found.worker_id, found.gpu_indexes) == (2, (1,))


def test_several_gpus_picked_by_hand_are_all_used() -> None:
    chosen = model(gpu_selector=GpuSelector(gpu_ids=("node-a:cuda:2", "node-a:cuda:0")))
    found = placed(ask(chosen, SMALL), worker(gpus=[gpu(i) for i in range(3)]))
    assert found.gpu_indexes == (0, 2)


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (("node-a:cuda:7",), "worker node-a has no GPU cuda:7"),
        (("node-a:rocm:0",), "worker node-a has no GPU rocm:0"),
        (("node-x:cuda:0",), "worker node-a has none of the selected GPUs"),
        (("node-a:cuda:1",), "GPU node-a:cuda:1 cannot be used: it fell off the bus"),
        (("nonsense",), "GPU id 'nonsense' is not <worker name>:<type>:<index>"),
        (("node-a:cuda:0", "node-b:cuda:0"), "there is no worker node-b, of which a GPU is selected"),
    ],
)
def test_gpus_that_cannot_be_picked_are_named_with_the_reason(ids: tuple[str, ...], sentence: str) -> None:
    here = worker(gpus=[gpu(0), gpu(1, fault="it fell off the bus")])
    said = refused(ask(model(gpu_selector=GpuSelector(gpu_ids=ids)), SMALL), here)
    assert sentence.lower() in said.lower()


def test_gpus_picked_by_hand_that_the_build_cannot_drive_are_refused_with_advice() -> None:
    chosen = model(gpu_selector=GpuSelector(gpu_ids=("node-a:cuda:0",)))
    said = refused(ask(chosen, SMALL), worker(gpus=[gpu(0)], build=CPU_BUILD))
    assert "cannot drive its GPU (cuda). Install a wheel built for CUDA" in said


def test_a_gpu_with_a_fault_is_left_alone() -> None:
    found = placed(ask(model(), SMALL), worker(gpus=[gpu(0, fault="lost"), gpu(1)]))
    assert found.gpu_indexes == (1,)


def test_labels_select_the_worker() -> None:
    picky = model(worker_selector={"zone": "b"})
    found = placed(ask(picky, SMALL), worker(1), worker(2, labels={"zone": "b"}))
    assert found.worker_id == 2


@pytest.mark.parametrize(
    "out",
    [
        {"cordoned": True},
        {"condition": Condition(state=WorkerState.NOT_READY, why="not heard for 50 s")},
        {"status": attrs.evolve(worker().status, engines=())},
        {"status": attrs.evolve(worker().status, memory=attrs.evolve(worker().status.memory, total=None))},
    ],
)
def test_a_worker_that_cannot_take_it_is_passed_over(out: dict[str, Any]) -> None:
    assert placed(ask(model(), SMALL), worker(1, **out), worker(2)).worker_id == 2


def test_claims_of_others_and_the_reserve_are_not_given_away() -> None:
    other = instance(7, model(2), on=1, claim=Claim(ram=57 * GIB))
    assert "short by" in refused(ask(model(), MIDDLE), worker(ram=64), other)
    placed(ask(model(), MIDDLE), worker(ram=66), other)


def test_an_instance_that_is_being_ended_still_holds_its_claim() -> None:
    import datetime

    ending = instance(
        7, model(2), on=1, claim=Claim(ram=60 * GIB), deleted_at=datetime.datetime.now(datetime.UTC)
    )
    assert "short by" in refused(ask(model(), MIDDLE), worker(ram=64), ending)


def test_unified_memory_is_claimed_once() -> None:
    memory = DeviceMemory(total=16 * GIB, is_unified_memory=True)
    mac = worker(ram=16, gpus=[gpu(0, memory=memory)])
    found = placed(ask(model(), MIDDLE), mac)
    assert found.claim.is_unified_memory
    held = instance(7, model(2), on=1, claim=Claim(ram=5 * GIB))
    elsewhere = placed(ask(model(), SMALL), mac, held)
    assert elsewhere.claim.ram + sum(elsewhere.claim.vram.values()) <= (16 - 2 - 5) * GIB
    assert "short by" in refused(ask(model(), LARGE), mac, held)


def test_spread_prefers_the_empty_worker_and_binpack_the_full_one() -> None:
    busy = instance(7, model(2), on=1, claim=Claim(ram=20 * GIB))
    there = (worker(1), worker(2), busy)
    assert placed(ask(model(placement_strategy=PlacementStrategy.SPREAD), SMALL), *there).worker_id == 2
    assert placed(ask(model(placement_strategy=PlacementStrategy.BINPACK), SMALL), *there).worker_id == 1


def test_spread_keeps_replicas_of_one_model_apart_before_it_minds_other_models() -> None:
    own, other = instance(7, model(1), on=1), instance(8, model(2), on=2)
    assert placed(ask(model(1), SMALL), worker(1), worker(2), own, other).worker_id == 2


def test_spread_prefers_the_empty_gpu_of_a_worker() -> None:
    busy = instance(7, model(2), on=1, claim=Claim(vram={0: GIB}))
    here = worker(gpus=[gpu(0, 48), gpu(1)])
    assert placed(ask(model(), SMALL), here, busy).gpu_indexes == (1,)


def test_embedding_models_need_no_room_for_logits() -> None:
    text = placed(ask(model(), SMALL), worker()).claim.ram
    vectors = placed(
        ask(model(categories=("embedding",), backend_parameters=("-ub", "512")), SMALL), worker()
    ).claim.ram
    assert vectors < text


def test_a_projector_is_not_a_model() -> None:
    from gpustack.domain.facts import FileFormat, ModelFacts
    from gpustack.domain.model import Category

    projector = ModelFacts(format=FileFormat.GGUF, architecture="clip", category=Category.UNKNOWN)
    assert "(clip) is not a model that can be served" in refused(ask(model(), projector), worker())


def test_faults_of_the_deployment_are_the_reason_and_no_worker_is_blamed() -> None:
    said = refused(ask(model(backend_parameters=("--port=1",)), SMALL), worker())
    assert said == "Backend parameter --port cannot be set: the worker chooses where it listens"

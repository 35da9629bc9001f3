"""llama.cpp over the GPUs and the memory of several workers."""

from __future__ import annotations

import re
from typing import Any

import attrs
import pytest

from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.instance import Claim, Placement, Subordinate
from gpustack.domain.model import GpuSelector
from gpustack.domain.record import Record
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, EngineBuild, Kernel, Worker, WorkerState
from gpustack.policy.decision import decide
from gpustack.policy.placement import GangSettings, PlacementRequest
from gpustack.policy.schedule import Unschedulable, place

from .shapes import facts_of
from .worlds import CPU_BUILD, CUDA_BUILD, RPC_BUILD, RPC_CPU_BUILD, ask, gpu, instance, model, worker, world

SMALL = facts_of("llama-3.2-1b")  # about 1.4 GiB
MIDDLE = facts_of("llama-3.1-8b")  # about 6 GiB
LARGE = facts_of("llama-3.3-70b")  # about 42 GiB


def node(key: int, *gib: float, build: EngineBuild = RPC_BUILD, **fields: Any) -> Worker:
    """A worker with so many GPUs of those sizes, which lends them."""
    return worker(key, gpus=[gpu(index, size) for index, size in enumerate(gib)], build=build, **fields)


def host(key: int, ram: float, build: EngineBuild = RPC_CPU_BUILD, **fields: Any) -> Worker:
    return worker(key, ram=ram, build=build, **fields)


def picked(*ids: str, **fields: Any) -> Any:
    return model(gpu_selector=GpuSelector(gpu_ids=ids), **fields)


def placed(question: PlacementRequest, *records: Record) -> Placement:
    outcome = place(question, world(*records))
    assert isinstance(outcome, Placement), outcome
    return outcome


def refused(question: PlacementRequest, *records: Record) -> str:
    outcome = place(question, world(*records))
    assert isinstance(outcome, Unschedulable), outcome
    return outcome.sentence


def seats(found: Placement) -> list[tuple[int, tuple[int, ...]]]:
    return [(found.worker_id, found.gpu_indexes), *((s.worker_id, s.gpu_indexes) for s in found.subordinates)]


def test_what_no_worker_holds_on_its_gpus_is_divided_among_workers() -> None:
    found = placed(ask(model(), LARGE), node(1, 24), node(2, 24, 16))
    assert seats(found) == [(2, (0, 1)), (1, (0,))]
    assert found.claim.offload_layers == found.claim.total_layers == 81
    assert found.note == "Divided among workers over RPC: node-b leads and uses 1 GPU of node-a"


def test_shares_are_in_the_order_of_llama_cpp_remote_devices_first() -> None:
    found = placed(ask(model(), LARGE), node(1, 10), node(2, 20, 20))
    (other,) = found.subordinates
    remote, first, second = found.claim.tensor_split
    assert remote < first and remote < second
    assert other.claim.vram[0] < found.claim.vram[0]
    assert other.claim.ram > 0, "the RPC server takes memory of its host"


def test_as_few_remote_gpus_as_hold_it_those_with_most_room_first() -> None:
    found = placed(ask(model(), LARGE), node(1, 20, 20), node(2, 6, 12, 12), node(3, 8))
    assert seats(found) == [(1, (0, 1)), (2, (1,))]


def test_one_worker_goes_before_several_and_several_before_the_cpu() -> None:
    alone = placed(ask(model(), LARGE), node(1, 24), node(2, 24, 24))
    assert seats(alone)[1:] == []
    together = placed(ask(model(), LARGE), node(1, 24, ram=256), node(2, 24))
    assert (together.claim.offload_layers, len(together.subordinates)) == (81, 1)


def test_the_deployment_can_refuse_to_be_divided_and_is_told_what_that_costs() -> None:
    strict = model(distributed_inference_across_workers=False, cpu_offloading=False)
    said = refused(ask(strict, LARGE), node(1, 24), node(2, 24, 16))
    assert said.endswith(
        "To make it fit: allow it to be divided among workers (distributed_inference_across_workers)"
    )
    partly = placed(
        ask(model(distributed_inference_across_workers=False), LARGE), node(1, 24), node(2, 24, 16)
    )
    assert seats(partly) == [(2, (0, 1))] and (partly.claim.offload_layers or 0) < 81


def test_small_devices_are_given_less_than_their_share_by_size() -> None:
    """A part of what a device needs does not shrink with its share."""
    found = placed(ask(model(), LARGE), node(1, 36), node(2, 12))
    by_size = 11 / 35
    small, large = found.claim.tensor_split
    assert small / large < by_size


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (node(2, 24, 16, build=CUDA_BUILD), "worker node-b has no llama-server with RPC (configured)"),
        (host(2, 64, build=CPU_BUILD), "worker node-b has no llama-server with RPC (embedded xllamacpp 1)"),
        (node(2, 24, 16, ip=""), "worker node-b has not told an address at which others reach it"),
        (
            attrs.evolve(
                node(2, 24, 16), status=attrs.evolve(node(2, 24, 16).status, kernel=Kernel(name="Darwin"))
            ),
            "worker node-b runs Darwin: only Linux can take part",
        ),
        (
            node(2, 24, 16, build=attrs.evolve(RPC_BUILD, version="8001", digest="e" * 64)),
            f"node-a has 8000 ({'d' * 12}) and node-b has 8001 ({'e' * 12}): workers need the same build of llama.cpp "
            "to share a model",
        ),
        (
            node(2, 24, 16, ip="127.0.0.1"),
            "workers node-a (10.0.0.1) and node-b (127.0.0.1) cannot reach each other; set --worker-ip",
        ),
    ],
)
def test_workers_that_cannot_work_together_are_told_apart_with_the_reason(other: Worker, why: str) -> None:
    said = refused(ask(model(cpu_offloading=False), LARGE), node(1, 24), other)
    assert f"over several workers: {why}" in said


def test_workers_on_one_machine_reach_each_other_by_loopback() -> None:
    found = placed(ask(model(), LARGE), node(1, 24, ip="127.0.0.1"), node(2, 24, 16, ip="127.0.0.1"))
    assert len(found.subordinates) == 1


@pytest.mark.parametrize(
    "out",
    [
        {"cordoned": True},
        {"draining": True},
        {"condition": Condition(state=WorkerState.NOT_READY, why="not heard")},
        {"condition": Condition(state=WorkerState.UNREACHABLE)},
    ],
)
def test_a_worker_that_takes_nothing_takes_no_part(out: dict[str, Any]) -> None:
    strict = model(cpu_offloading=False)
    assert refused(ask(strict, LARGE), node(1, 24), node(2, 24, 16, **out))


def test_a_worker_that_runs_no_rpc_server_lends_nothing_but_may_lead() -> None:
    keeps = attrs.evolve(RPC_BUILD, rpc_server=None)  # --disable-rpc-servers
    found = placed(ask(model(), LARGE), node(1, 24, 16, build=keeps), node(2, 24))
    assert seats(found) == [(1, (0, 1)), (2, (0,))]
    strict = model(cpu_offloading=False)
    assert refused(ask(strict, LARGE), node(1, 24, 16, build=keeps), node(2, 24, build=keeps))


def test_a_build_without_rpc_may_lend_and_does_not_lead() -> None:
    serves = attrs.evolve(RPC_BUILD, rpc=False)
    found = placed(ask(model(), LARGE), node(1, 24, 16, build=serves), node(2, 12))
    assert seats(found) == [(2, (0,)), (1, (0,)), (1, (1,))]


def test_no_more_remote_devices_than_the_operator_allows() -> None:
    there = [node(key, 14) for key in range(1, 6)]
    assert len(placed(ask(model(), LARGE), *there).subordinates) == 3
    few = GangSettings(most_remote=2)
    strict = model(cpu_offloading=False)
    assert refused(ask(strict, LARGE, gangs=few), *there)
    few = GangSettings(most_considered=2)
    assert refused(ask(strict, LARGE, gangs=few), *there)


def test_what_others_claim_on_a_remote_gpu_is_not_lent_again() -> None:
    held = instance(7, model(2), on=2, claim=Claim(vram={0: 20 * GIB}))
    strict = model(cpu_offloading=False)
    placed(ask(strict, LARGE), node(1, 24, 16), node(2, 24))
    assert refused(ask(strict, LARGE), node(1, 24, 16), node(2, 24), held)


def test_what_a_gang_holds_on_a_remote_gpu_is_taken() -> None:
    lent = Subordinate(worker_id=2, gpu_indexes=(0,), claim=Claim(vram={0: 20 * GIB}))
    gang = Placement(worker_id=3, claim=Claim(), subordinates=(lent,))
    held = attrs.evolve(instance(7, model(2), on=3), placement=gang)
    strict = model(cpu_offloading=False)
    assert refused(ask(strict, LARGE), node(1, 24, 16), node(2, 24), host(3, 64), held)


def test_the_users_split_says_how_many_devices_and_their_shares() -> None:
    found = placed(ask(model(backend_parameters=("-ts=1,1,2",)), LARGE), node(1, 20), node(2, 20, 36, ram=16))
    assert seats(found) == [(2, (0, 1)), (1, (0,))]
    assert found.claim.tensor_split == (1000, 1000, 2000)


def test_the_users_number_of_layers_is_divided_among_workers() -> None:
    found = placed(ask(model(backend_parameters=("-ngl", "70")), LARGE), node(1, 20), node(2, 24))
    assert found.claim.offload_layers == 70
    assert len(found.subordinates) == 1


def test_gpus_picked_on_several_workers_are_all_used_led_by_where_most_are() -> None:
    chosen = picked("node-a:cuda:0", "node-b:cuda:2", "node-b:cuda:0")
    found = placed(ask(chosen, SMALL), node(1, 24, 24), node(2, 24, 24, 24), node(3, 24))
    assert seats(found) == [(2, (0, 2)), (1, (0,))]


def test_picked_gpus_that_hold_too_little_leave_the_rest_to_the_cpu() -> None:
    chosen = picked("node-a:cuda:0", "node-b:cuda:0")
    found = placed(ask(chosen, LARGE), node(1, 16), node(2, 16))
    assert 0 < (found.claim.offload_layers or 0) < 81
    assert "the others on its CPU" in found.note
    assert refused(ask(attrs.evolve(chosen, cpu_offloading=False), LARGE), node(1, 16), node(2, 16))


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        (
            picked("node-a:cuda:0", "node-b:cuda:0", distributed_inference_across_workers=False),
            "GPUs of several workers are selected (node-a, node-b), but the deployment must not be divided among "
            "workers (distributed_inference_across_workers); select GPUs of one worker",
        ),
        (picked("node-a:cuda:0", "node-b:cuda:7"), "worker node-b has no GPU cuda:7"),
        (picked("node-a:cuda:0", "node-x:cuda:0"), "there is no worker node-x, of which a GPU is selected"),
        (
            picked("node-a:cuda:0", "node-b:cuda:0", "node-b:cuda:1"),
            "1 of them would be used over the network, more than the 0 of DEFAULT_MAX_RPC_SERVER_COUNT",
        ),
    ],
)
def test_what_is_wrong_with_picked_gpus_is_said(chosen: Any, why: str) -> None:
    settings = GangSettings(most_remote=0) if "DEFAULT" in why else GangSettings()
    said = refused(ask(chosen, SMALL, gangs=settings), node(1, 24), node(2, 24, 24))
    assert why.lower() in said.lower()


def test_a_custom_command_is_not_divided() -> None:
    chosen = picked("node-a:cuda:0", "node-b:cuda:0", backend="custom", command="run {port}")
    said = refused(ask(chosen, engine_name="custom"), node(1, 24), node(2, 24))
    assert "but custom cannot divide it among them; select GPUs of one worker" in said


def test_hosts_without_gpus_lend_their_memory_when_nothing_else_holds_it() -> None:
    found = placed(ask(model(), LARGE), host(1, 30), host(2, 40), host(3, 20))
    assert seats(found) == [(2, ()), (1, ())]
    (other,) = found.subordinates
    assert other.claim.vram == {} and other.claim.ram > 10 * GIB
    assert 0 < (found.claim.offload_layers or 0) < 81
    assert found.claim.ram > other.claim.ram, "the larger host takes the larger part"
    assert "node-b leads" in found.note


def test_the_memory_of_hosts_comes_after_the_cpu_of_one_worker() -> None:
    assert seats(placed(ask(model(), LARGE), host(1, 30), host(2, 64))) == [(2, ())]


def test_a_deployment_that_must_not_run_on_the_cpu_uses_no_memory_of_hosts() -> None:
    assert refused(ask(model(cpu_offloading=False), LARGE), host(1, 30), host(2, 40))


def test_gpus_take_their_layers_before_hosts_do() -> None:
    found = placed(ask(model(), LARGE), node(1, 16, ram=16), node(2, 12, ram=16), host(3, 30))
    assert seats(found) == [(1, (0,)), (2, (0,)), (3, ())]


def test_what_all_together_do_not_hold_is_said_with_figures() -> None:
    said = refused(ask(model(), LARGE), host(1, 10), host(2, 12))
    assert (
        "over several workers: worker node-b and 1 GPU or host of others have 18.0 GiB of memory free" in said
    )
    assert re.search(
        r"with 13 of 81 layers divided among devices and hosts each of these needs [78]\.\d GiB, and worker node-b "
        r"3\d\.\d GiB for the rest, but worker node-b has only 10\.0 GiB free",
        said,
    ), said


def test_a_host_that_does_not_hold_the_least_part_is_named_with_what_that_part_needs() -> None:
    said = refused(ask(model(), LARGE), host(1, 44.5), host(2, 2.3))
    assert "with 1 of 81 layers" in said
    assert re.search(r"each of these needs (\d+\.\d GiB|\d+\.\d MiB), ", said), said
    assert "but worker node-b has only 307.2 MiB free" in said


def test_a_split_counts_devices_only_where_no_host_holds_the_model_alone() -> None:
    split = model(backend_parameters=("--tensor-split=1,1",))
    assert seats(placed(ask(split, LARGE), host(1, 64), host(2, 64))) == [(1, ())]
    assert len(seats(placed(ask(split, LARGE), host(1, 30), host(2, 40), host(3, 30)))) == 3
    said = refused(ask(split, LARGE), host(1, 30), host(2, 40))
    assert "divide it among 2 devices, and worker node-b has 0 and is lent 1" in said


def test_a_projector_is_counted_on_the_worker_that_leads() -> None:
    seeing = attrs.evolve(LARGE, projector_size=2 * GIB)
    plain = ask(model(), LARGE).demand.among_workers((1, 1, 1), 2)
    with_eyes = ask(model(), seeing).demand.among_workers((1, 1, 1), 2)
    grown = [after > before for before, after in zip(plain.vram, with_eyes.vram, strict=True)]
    assert grown == [False, False, True]


def test_a_need_that_is_claimed_is_divided_by_free_memory() -> None:
    claimed = model(env={"GPUSTACK_MODEL_VRAM_CLAIM": str(40 * GIB)}, cpu_offloading=False)
    found = placed(ask(claimed, ModelFacts(format=FileFormat.GGUF)), node(1, 24), node(2, 25))
    vram = {
        found.worker_id: found.claim.vram[0],
        **{s.worker_id: s.claim.vram[0] for s in found.subordinates},
    }
    assert sum(vram.values()) == pytest.approx(40 * GIB, abs=2)
    assert vram[2] > vram[1]


def test_the_place_is_the_same_when_decided_again_among_its_workers() -> None:
    """The claiming transaction does that."""
    there = [node(1, 24), node(2, 24, 16), node(3, 16), host(4, 64)]
    snapshot = world(*there)
    first = decide(ask(model(), LARGE), snapshot)
    assert isinstance(first, Placement)
    touched = {first.worker_id, *(share.worker_id for share in first.subordinates)}
    again = decide(ask(model(), LARGE), snapshot, among=[w for w in there if w.id in touched])
    assert again == first

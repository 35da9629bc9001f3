"""A claim counts what runs have shown of the same build on the same kind of device, and says so."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from gpustack.domain.instance import Placement
from gpustack.domain.memory_use import MeasuredMemory, MemoryPlan, MemoryRecord, MemorySample
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB, MIB
from gpustack.domain.worker import Worker
from gpustack.policy.estimate.demand import LEARNING, RAM_CLAIM, VRAM_CLAIM
from gpustack.policy.estimate.learnt import KnownRuns
from gpustack.policy.explain import explain
from gpustack.policy.placement import Unschedulable
from gpustack.policy.schedule import place

from .shapes import facts_of
from .test_equal_gang import BUILD as VLLM
from .test_safetensors_placement import SOURCE, facts
from .worlds import CUDA_BUILD, ask, gpu, instance, model, worker, world

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SMALL = facts_of("llama-3.1-8b")
BUILD = attrs.evolve(CUDA_BUILD, version="9300")


def h200(key: int = 1, name: str = "H200", version: str = "9300", gib: float = 24) -> Worker:
    return worker(key, gpus=[gpu(0, gib, name=name)], build=attrs.evolve(BUILD, version=version))


def put(of: Model, snapshot: Snapshot, **more: object) -> Placement:
    known = KnownRuns.of(snapshot, "llama.cpp", SMALL)
    outcome = place(ask(of, SMALL, known=known, **more), snapshot)
    assert isinstance(outcome, Placement), outcome
    return outcome


def plan_of(placement: Placement) -> MemoryPlan:
    assert placement.memory is not None
    return placement.memory


def record(plan: MemoryPlan, runs: int, key: int = 1, **ratios: float) -> MemoryRecord:
    """Runs of which each term took so much of what was estimated."""
    shares = {name.replace("_", " "): share for name, share in ratios.items()}
    measured = {name: int(share * plan.estimated[name]) for name, share in shares.items()}
    samples = tuple(
        MemorySample(at=NOW, instance_id=number, worker_id=1, estimated=plan.estimated, measured=measured)
        for number in range(runs)
    )
    return MemoryRecord(
        id=key,
        key=str(key),
        engine=plan.engine,
        build="9300",
        architecture=plan.architecture,
        device="H200",
        settings=plan.settings,
        samples=samples,
    )


M = model()


def test_a_plan_has_all_that_is_claimed_and_no_more() -> None:
    for there in (h200(), worker(ram=64), worker(gpus=[gpu(0, 6)]), worker(gpus=[gpu(0, 6), gpu(1, 6)])):
        placed = put(M, world(there, M))
        plan = plan_of(placed)
        ram = sum(size for name, size in plan.claimed.items() if name.startswith("host "))
        vram = sum(size for name, size in plan.claimed.items() if name.startswith("devices "))
        assert abs(ram - placed.claim.ram) <= 2
        assert abs(vram - sum(placed.claim.vram.values())) <= 2 * len(placed.claim.vram)
        assert plan.learnt == {}


def test_what_a_larger_device_is_given_beyond_the_terms_is_for_computing() -> None:
    """vLLM takes larger steps there."""
    of = model(source=SOURCE, backend="vllm")
    known = facts()
    plans = {}
    for size in (24, 141):
        there = worker(gpus=[gpu(0, size)], ram=128, build=VLLM)
        placed = place(ask(of, known, engine_name="vllm"), world(there, of))
        assert isinstance(placed, Placement)
        plan = plans[size] = plan_of(placed)
        claimed = sum(bytes_ for name, bytes_ in plan.claimed.items() if name.startswith("devices "))
        assert abs(claimed - sum(placed.claim.vram.values())) < MIB
    assert plans[141].estimated["devices compute"] > plans[24].estimated["devices compute"]


def test_runs_that_took_more_raise_the_claim_and_those_that_took_less_lower_it() -> None:
    before = put(M, world(h200(), M))
    plan = plan_of(before)
    for share, runs in ((2.0, 1), (0.5, 1), (0.5, 7)):
        after = put(M, world(h200(), M, record(plan, runs, devices_compute=share, devices_process=share)))
        learnt = plan_of(after)
        taken = share * (plan.estimated["devices compute"] + plan.estimated["devices process"])
        exact = plan.claimed["devices weights"] + plan.claimed["devices cache"]
        assert sum(after.claim.vram.values()) >= exact + taken
        assert (sum(after.claim.vram.values()) > sum(before.claim.vram.values())) == (share > 1)
        assert {name: one.runs for name, one in learnt.learnt.items()} == {
            "devices compute": runs,
            "devices process": runs,
        }
        assert after.claim.kv_cache == before.claim.kv_cache


def test_other_builds_devices_and_settings_learn_nothing_from_it() -> None:
    plan = plan_of(put(M, world(h200(), M)))
    taught = record(plan, 3, devices_compute=3.0)
    same = put(M, world(h200(), M, taught))
    for there, of in (
        (h200(name="L4"), M),
        (h200(version="9400"), M),
        (h200(), model(backend_parameters=("--ctx-size", "4096"))),
        (h200(), model(backend_parameters=("--n-cpu-moe", "4"))),
        (h200(), model(env={"GGML_CUDA_FORCE_MMQ": "1"})),
        (worker(gpus=[gpu(0, name="H200"), gpu(1, name="L4")], build=BUILD), M),
    ):
        assert plan_of(put(of, world(there, of, taught))).learnt == {}
    assert plan_of(same).learnt


def test_a_worker_that_is_known_to_need_more_is_not_taken_for_one_like_others() -> None:
    """Two workers that differ by the name of their GPU alone: only on one of them is it known to take more."""
    strict = model(cpu_offloading=False, backend_parameters=("--parallel", "4", "--ctx-size", "32768"))
    plan = plan_of(put(strict, world(h200(), strict)))
    need = sum(size for name, size in plan.claimed.items() if name.startswith("devices "))
    tight = (need + 1.2 * GIB) / GIB
    taught = record(plan, 2, devices_process=4.0)
    there = [h200(1, gib=tight), h200(2, name="L4", gib=tight)]
    assert put(strict, world(*there, strict, taught)).worker_id == 2
    snapshot = world(there[0], strict, taught)
    alone = place(ask(strict, SMALL, known=KnownRuns.of(snapshot, "llama.cpp", SMALL)), snapshot)
    assert isinstance(alone, Unschedulable)
    assert isinstance(place(ask(strict, SMALL), snapshot), Placement)


def test_the_users_own_claim_wins_and_learning_can_be_switched_off() -> None:
    plan = plan_of(put(M, world(h200(), M)))
    taught = record(plan, 3, devices_compute=3.0)
    off = model(env={LEARNING: "off"})
    assert put(off, world(h200(), off, taught)).claim == put(off, world(h200(), off)).claim
    own = model(env={VRAM_CLAIM: str(9 * GIB), RAM_CLAIM: str(GIB)})
    placed = put(own, world(h200(), own, taught))
    assert (placed.claim.vram, placed.claim.ram, placed.memory) == ({0: 9 * GIB}, GIB, None)


def test_explain_says_what_is_learnt_and_what_is_estimated() -> None:
    plan = plan_of(put(M, world(h200(), M)))
    snapshot = world(h200(), M, record(plan, 7, devices_compute=1.2))
    asked = instance(1, M)
    said = explain(M, asked, snapshot, SMALL)
    learnt = next(one for one in said.memory if "computing" in one and one.startswith("Video"))
    assert "learnt from 7 runs of llama.cpp 9300, ± 1 % (by formula " in learnt
    assert any(
        one.startswith("Video memory for the weights: ") and one.endswith(", estimated")
        for one in said.memory
    )
    measured = MeasuredMemory(
        terms={"devices compute": 300 * MIB},
        host=90 * MIB,
        host_peak=95 * MIB,
        devices=GIB,
        devices_peak=2 * GIB,
    )
    placed = attrs.evolve(asked, placement=put(M, snapshot), memory=measured)
    told = explain(M, placed, snapshot.changed(placed), SMALL).memory
    assert any("300.0 MiB measured" in one for one in told)
    assert told[-1] == "When it was ready it held 1.0 GiB of video memory, and 2.0 GiB since"


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_an_engine_of_safetensors_learns_too(gpus: int) -> None:
    of = model(
        source=SOURCE,
        backend="vllm",
        backend_parameters=("--kv-cache-memory-bytes=1G", f"-tp={max(gpus, 1)}"),
    )
    build = attrs.evolve(VLLM, version="0.32.0", on_cpu=True)
    there = worker(gpus=[gpu(index, 48, name="H200") for index in range(gpus)], ram=128, build=build)
    known = facts()

    def outcome(*more: MemoryRecord) -> Placement:
        snapshot = world(there, of, *more)
        runs = KnownRuns.of(snapshot, "vllm", known)
        found = place(ask(of, known, engine_name="vllm", known=runs), snapshot)
        assert isinstance(found, Placement), found
        return found

    before = outcome()
    plan = plan_of(before)
    side = "devices" if gpus else "host"
    total = sum(before.claim.vram.values()) if gpus else before.claim.ram
    assert abs(sum(size for name, size in plan.claimed.items() if name.startswith(side)) - total) <= 4
    name = f"{side}_process"
    taught = attrs.evolve(
        record(plan, 2, **{name: 2.0}), build="0.32.0", device="H200" if gpus else "", settings=plan.settings
    )
    after = outcome(taught)
    now = sum(after.claim.vram.values()) if gpus else after.claim.ram
    assert now >= total + plan.estimated[name.replace("_", " ")]
    assert after.claim.kv_cache == before.claim.kv_cache

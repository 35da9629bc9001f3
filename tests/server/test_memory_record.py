"""What workers measure of engines is kept, within bounds, and is what later estimates learn from."""

from __future__ import annotations

import pytest

from gpustack.domain.instance import Claim, ModelInstance, Placement, Subordinate
from gpustack.domain.lifecycle import REPLACE
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.memory_use import MOST_SAMPLES, MeasuredMemory, MemoryPlan, MemoryRecord
from gpustack.domain.report import InstanceReport
from gpustack.domain.unit import MIB
from gpustack.domain.worker import Worker
from gpustack.server import memory_record
from gpustack.server.lifecycle import give_up_place
from gpustack.server.report import report_instance
from tests.policy.worlds import gpu

from .cluster import Cluster


def plan(settings: str = "ctx=8192") -> MemoryPlan:
    estimated = {"devices weights": 400 * MIB, "devices compute": 200 * MIB, "devices process": 500 * MIB}
    return MemoryPlan(
        engine="llama.cpp",
        architecture="llama",
        settings=settings,
        estimated=estimated,
        claimed=estimated,
    )


def place(worker: Worker, *indexes: int, **more: object) -> Placement:
    claim = Claim(vram=dict.fromkeys(indexes, MIB))
    return Placement(
        **{
            "worker_id": worker.id,
            "gpu_indexes": indexes,
            "claim": claim,
            "memory": plan(),
            **more,
        }  # type: ignore[arg-type]  # a test's words
    )


async def running(cluster: Cluster, worker: Worker, placement: Placement) -> ModelInstance:
    model = await cluster.model(f"m{len(cluster.snapshot.models)}")
    made = await cluster.instance(model, on=worker, state=S.RUNNING)
    return await cluster.store.write(lambda tx: tx.change(ModelInstance, made.id, placement=placement))


async def tell(cluster: Cluster, instance: ModelInstance, **figures: object) -> None:
    told = {"build": "9300", "terms": {"devices compute": 300 * MIB}, "devices_peak": 1300 * MIB}
    measured = MeasuredMemory(**{**told, **figures})  # type: ignore[arg-type]  # a test's words
    assert instance.placement is not None
    report = InstanceReport(memory=measured)
    await report_instance(cluster.store, instance.placement.worker_id, instance.id, report)


def records(cluster: Cluster) -> list[MemoryRecord]:
    return list(cluster.snapshot.all(MemoryRecord).values())


async def test_a_run_is_kept_by_what_it_ran_on_and_the_last_word_of_an_instance_counts(
    cluster: Cluster,
) -> None:
    worker = await cluster.worker("a", gpu(0, name="H200"), gpu(1, name="H200"))
    instance = await running(cluster, worker, place(worker, 0, 1))
    await tell(cluster, instance)
    await tell(cluster, instance, devices_peak=1400 * MIB)
    [kept] = records(cluster)
    assert (kept.engine, kept.build, kept.architecture, kept.device, kept.settings) == (
        "llama.cpp",
        "9300",
        "llama",
        "H200",
        "ctx=8192",
    )
    [sample] = kept.samples
    assert sample.measured == {"devices compute": 300 * MIB, "devices process": 700 * MIB}
    assert sample.estimated == {"devices compute": 200 * MIB, "devices process": 500 * MIB}
    now = cluster.now(instance)
    assert now.state is S.RUNNING and now.memory is not None and now.memory.devices_peak == 1400 * MIB


async def test_runs_that_cannot_be_compared_are_kept_apart(cluster: Cluster) -> None:
    worker = await cluster.worker("a", gpu(0, name="H200"))
    other = await cluster.worker("b", gpu(0, name="L4"))
    for there, placement, build in (
        (worker, place(worker, 0), "9300"),
        (worker, place(worker, 0), "9400"),
        (other, place(other, 0), "9300"),
        (worker, place(worker, 0, memory=plan("ctx=4096")), "9300"),
        (worker, place(worker, 0), "9300"),
    ):
        await tell(cluster, await running(cluster, there, placement), build=build)
    assert sorted(len(one.samples) for one in records(cluster)) == [1, 1, 1, 2]


@pytest.mark.parametrize("case", ["no plan", "several kinds", "a gang", "lies"])
async def test_what_teaches_nothing_is_shown_and_not_kept(cluster: Cluster, case: str) -> None:
    worker = await cluster.worker("a", gpu(0, name="H200"), gpu(1, name="L4"))
    more: dict[str, object] = {"no plan": {"memory": None}}.get(case, {})
    if case == "a gang":
        more = {"subordinates": (Subordinate(worker_id=worker.id),)}
    instance = await running(
        cluster, worker, place(worker, *((0, 1) if case == "several kinds" else (0,)), **more)
    )
    figures = (
        {"terms": {"devices compute": 1 << 60, "host x": -5}, "devices_peak": -1} if case == "lies" else {}
    )
    await tell(cluster, instance, **figures)
    assert records(cluster) == []
    assert cluster.now(instance).memory is not None


async def test_what_was_measured_goes_with_the_place(cluster: Cluster) -> None:
    worker = await cluster.worker("a", gpu(0))
    instance = await running(cluster, worker, place(worker, 0))
    await tell(cluster, instance)
    await report_instance(cluster.store, worker.id, instance.id, InstanceReport(state=S.ERROR))
    assert cluster.now(instance).memory is None
    await tell(cluster, instance)
    await cluster.store.write(
        lambda tx: give_up_place(tx, tx.get(ModelInstance, instance.id), REPLACE, "moved")
    )  # type: ignore[arg-type]  # it is there
    assert cluster.now(instance).memory is None


async def test_old_samples_and_records_are_forgotten(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_record, "MOST_RECORDS", 2)
    worker = await cluster.worker("a", gpu(0, name="H200"))
    for _ in range(MOST_SAMPLES + 2):
        await tell(cluster, await running(cluster, worker, place(worker, 0)))
        cluster.clock.forward(60)
    [kept] = records(cluster)
    assert len(kept.samples) == MOST_SAMPLES
    for settings in ("ctx=1", "ctx=2"):
        cluster.clock.forward(60)
        await tell(cluster, await running(cluster, worker, place(worker, 0, memory=plan(settings))))
    assert {one.settings for one in records(cluster)} == {"ctx=1", "ctx=2"}
    cluster.clock.forward(memory_record.FORGOTTEN_AFTER.total_seconds() + 60)
    await tell(cluster, await running(cluster, worker, place(worker, 0, memory=plan("ctx=3"))))
    assert {one.settings for one in records(cluster)} == {"ctx=3"}


async def test_a_worker_that_tells_of_ever_other_builds_pushes_out_only_what_it_told_itself(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_record, "MOST_RECORDS", 4)
    honest = await cluster.worker("a", gpu(0, name="H200"))
    other = await cluster.worker("b", gpu(0, name="H200"))
    await tell(cluster, await running(cluster, honest, place(honest, 0)))
    liar = await running(cluster, other, place(other, 0))
    for number in range(9):
        cluster.clock.forward(60)
        await tell(cluster, liar, build=f"made-up-{number}")
    assert sorted(one.build for one in records(cluster)) == ["9300", *(f"made-up-{n}" for n in (6, 7, 8))]

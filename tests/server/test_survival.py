"""The loss of each worker is thought through in the background, and again once something has changed."""

from __future__ import annotations

import pytest
import trio

from gpustack.domain.unit import GIB
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.restart import RestartPolicy
from gpustack.server import survival
from gpustack.server.survival import SurvivalWatch
from tests.policy.shapes import facts_of
from tests.policy.worlds import Claim, gpu
from tests.stumble import Stumble

from .cluster import PATIENCE, Cluster

HELD = Claim(ram=GIB, vram={0: 9 * GIB})


async def until(watch: SurvivalWatch, wanted: dict[int, bool]) -> None:
    with trio.fail_after(PATIENCE):
        revision, report = watch.found.revision, watch.found.value
        while report is None or report.fragile != wanted:
            revision, report = await watch.found.changed(revision)


async def test_every_worker_is_looked_at_and_again_when_something_changes(
    cluster: Cluster, nursery: trio.Nursery
) -> None:
    cluster.readers.known["me/m/m.gguf"] = facts_of("llama-3.1-8b")
    first = await cluster.worker("a", gpu(0, 12), ram=8)
    await cluster.worker("idle", gpu(0, 4), ram=8)
    model = await cluster.model("m", cpu_offloading=False, distributed_inference_across_workers=False)
    await cluster.instance(model, on=first, claim=HELD)
    facts = cluster.facts()
    await nursery.start(lambda task_status: facts.run(task_status=task_status))
    watch = SurvivalWatch(cluster.store, facts, cluster.clock, every=0.01)
    assert "not looked yet" in repr(watch) and watch.report is None
    await nursery.start(lambda task_status: watch.run(task_status=task_status))
    await until(watch, {model.id: True})
    assert watch.report is not None and set(watch.report.losses) == {first.id}
    assert repr(watch) == "<SurvivalWatch: 1 workers looked at>"
    await cluster.worker("b", gpu(0, 12), ram=8)
    await until(watch, {model.id: False})
    await cluster.change(first, cordoned=True)
    await until(watch, {model.id: False})


async def test_a_worker_of_whom_nothing_can_be_said_leaves_the_others(
    cluster: Cluster, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is tried again later."""
    stumble = Stumble(survival, "loss_of", lambda worker_id, *_: worker_id == 1)
    stumble.put(monkeypatch)
    workers = [await cluster.worker(name, gpu(0, 12), ram=8) for name in ("a", "b")]
    model = await cluster.model("m", cpu_offloading=False, distributed_inference_across_workers=False)
    for worker in workers:
        await cluster.instance(model, on=worker, claim=HELD)
    facts = cluster.facts()
    await nursery.start(lambda task_status: facts.run(task_status=task_status))
    faults = Quarantine("survival", back_off=RestartPolicy(first=0.1))
    watch = SurvivalWatch(cluster.store, facts, cluster.clock, every=0.01, faults=faults)
    await nursery.start(lambda task_status: watch.run(task_status=task_status))
    with trio.fail_after(PATIENCE):
        revision, report = await watch.found.changed(0)
        assert report is not None and set(report.losses) == {workers[1].id}
        while report is None or len(report.losses) < 2:
            revision, report = await watch.found.changed(revision)

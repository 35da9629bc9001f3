"""An instance is explained as the scheduler would decide now."""

from __future__ import annotations

import pytest
import trio

from gpustack.errors import NotFound
from gpustack.server.evaluation import explain_instance
from gpustack.server.facts import FactsCache

from .cluster import Cluster


async def test_a_header_is_waited_for_and_then_used(cluster: Cluster, facts: FactsCache) -> None:
    await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"))
    told = await explain_instance(cluster.store, facts, instance.id)
    assert told.fits
    assert told.sentence.startswith("fits on worker a, CPU")


async def test_a_header_that_does_not_come_is_said_to_be_under_way(
    cluster: Cluster, facts: FactsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpustack.server.evaluation._EXPLAIN_WITHIN", 0.05)
    cluster.readers.gate = trio.Event()
    await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"))
    told = await explain_instance(cluster.store, facts, instance.id)
    assert told.sentence == "The header of me/m/m.gguf is being read; ask again in a moment"
    assert told.fits is False


async def test_a_fault_of_the_header_is_told_and_no_worker_is_said_to_fit(
    cluster: Cluster, facts: FactsCache
) -> None:
    cluster.readers.known["me/m/m.gguf"] = NotFound("no such file")
    await cluster.worker("a")
    await cluster.worker("b", cordoned=True)
    instance = await cluster.instance(await cluster.model("m"))
    told = await explain_instance(cluster.store, facts, instance.id)
    assert told.sentence == "no such file"
    assert [worker.fits for worker in told.workers] == [None, False]
    assert "once its file can be read" in told.workers[0].sentences[0]


async def test_what_has_no_files_is_explained_without_reading(cluster: Cluster, facts: FactsCache) -> None:
    await cluster.worker("a")
    model = await cluster.model("m", backend="custom", command="x --port {port}")
    instance = await cluster.instance(model)
    assert (await explain_instance(cluster.store, facts, instance.id)).fits
    assert cluster.readers.asked == []


async def test_what_does_not_exist_is_not_explained(cluster: Cluster, facts: FactsCache) -> None:
    with pytest.raises(NotFound, match="Model instance 7"):
        await explain_instance(cluster.store, facts, 7)

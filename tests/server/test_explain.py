"""An instance is explained as the scheduler would decide now."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from gpustack.errors import NotFound
from gpustack.server.explain import explain_instance
from gpustack.server.facts import FactsSource

from .cluster import Cluster


@pytest.fixture
async def facts(cluster: Cluster, nursery: trio.Nursery) -> FactsSource:
    source = cluster.facts()
    await nursery.start(lambda task_status: source.run(task_status=task_status))
    return source


async def test_a_header_not_read_yet_is_said_so_and_then_used(cluster: Cluster, facts: FactsSource) -> None:
    await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"))
    told = await explain_instance(cluster.store, facts, instance.id)
    assert (told.fits, told.sentence) == (
        False,
        "The header of me/m/m.gguf is being read; ask again in a moment",
    )
    await trio.testing.wait_all_tasks_blocked()
    told = await explain_instance(cluster.store, facts, instance.id)
    assert told.fits
    assert told.sentence.startswith("fits on worker a, CPU")


async def test_a_fault_of_the_header_is_told(cluster: Cluster, facts: FactsSource) -> None:
    cluster.readers.known["me/m/m.gguf"] = NotFound("no such file")
    await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"))
    await explain_instance(cluster.store, facts, instance.id)
    await trio.testing.wait_all_tasks_blocked()
    assert (await explain_instance(cluster.store, facts, instance.id)).sentence == "no such file"


async def test_what_has_no_files_is_explained_without_reading(cluster: Cluster, facts: FactsSource) -> None:
    await cluster.worker("a")
    model = await cluster.model("m", backend="custom", command="x --port {port}")
    instance = await cluster.instance(model)
    assert (await explain_instance(cluster.store, facts, instance.id)).fits
    assert cluster.readers.asked == []


async def test_what_does_not_exist_is_not_explained(cluster: Cluster, facts: FactsSource) -> None:
    with pytest.raises(NotFound, match="Model instance 7"):
        await explain_instance(cluster.store, facts, 7)

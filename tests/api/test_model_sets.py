"""The catalog over HTTP, and the word of new versions."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import trio

from gpustack.api.deployment import MODEL_BODY, model_from, refuse_wrong
from gpustack.api.route import read_document
from gpustack.api.shape import Document
from gpustack.api.view import dumps
from gpustack.server.catalog import Catalog
from gpustack.server.update_check import UpdateCheck

from .world import World


@pytest.fixture
async def stocked(world: World) -> AsyncIterator[World]:
    catalog = Catalog()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: catalog.run(task_status=task_status))
        yield world.rebuilt(catalog=catalog)
        nursery.cancel_scope.cancel()


async def names(world: World, query: str = "") -> list[str]:
    return [item["name"] for item in (await world.get(f"/v1/model-sets?{query}"))["items"]]


async def test_the_catalog_is_listed_in_its_order(stocked: World) -> None:
    listed = await stocked.get("/v1/model-sets")
    assert [item["id"] for item in listed["items"]] == list(range(1, len(listed["items"]) + 1))
    first = listed["items"][0]
    assert first["name"] == "Qwen3" and "apache-2.0" in first["licenses"] and 0.6 in first["sizes"]
    assert not {"templates", "quantizations"} & first.keys()


async def test_it_is_searched_filtered_sorted_and_cut_into_pages(stocked: World) -> None:
    assert "Qwen3 Embedding" in await names(stocked, "search=qwen3")
    assert "gpt-oss" not in await names(stocked, "search=qwen3")
    assert all("Embed" in name or "BGE" in name for name in await names(stocked, "categories=embedding"))
    both = await names(stocked, "categories[]=embedding&categories[]=reranker")
    assert "Qwen3 Reranker" in both and "BGE M3" in both
    assert await names(stocked, "page=2&perPage=1") == ["Qwen3 30B A3B"]
    assert (await names(stocked, "sort_by=-name"))[0] == "SmolLM2"


async def test_every_deployment_of_the_catalog_can_be_created_as_it_is(stocked: World) -> None:
    body = Document(name="ModelCreate", fields=MODEL_BODY, required=("name", "source"))
    for item in (await stocked.get("/v1/model-sets?perPage=-1"))["items"]:
        listed = await stocked.get(f"/v1/model-sets/{item['id']}/specs")
        assert listed["pagination"]["total"] == len(listed["items"]) > 0
        for spec in listed["items"]:
            assert spec["size"] in item["sizes"] and spec["quantization"]
            model = model_from(read_document(dumps({**spec, "name": "mine"}), body))
            refuse_wrong(model, stocked.store.snapshot)


async def test_what_is_not_in_the_catalog_does_not_exist(stocked: World) -> None:
    assert (await stocked.ask("GET", "/v1/model-sets/4711/specs", stocked.admin)).status_code == 404


async def test_people_who_may_not_deploy_do_not_see_it(stocked: World) -> None:
    user = await stocked.user("ada")
    assert (await stocked.ask("GET", "/v1/model-sets", user)).status_code == 403


async def test_the_latest_version_is_our_own_until_another_is_heard_of(world: World) -> None:
    assert await world.get("/update") == {"latest_version": "1.2.3", "checked_at": None}
    updates = UpdateCheck("1.2.3", None, world.clock, random.Random(1))
    updates.latest, updates.checked_at = "1.3.0", world.clock()
    for path in ("/update", "/update/"):
        shown = await world.rebuilt(updates=updates).get(path)
        assert shown == {"latest_version": "1.3.0", "checked_at": "2026-01-02T03:04:05Z"}

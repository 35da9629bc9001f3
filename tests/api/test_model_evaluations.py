"""Deployments are weighed before they are created."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from gpustack.domain.artifact import ModelSource
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Worker
from gpustack.errors import GpustackError, NotFound
from gpustack.server.catalog import Catalog
from gpustack.server.evaluation import NO_PLACE, EvaluationSettings, Evaluator
from gpustack.server.facts import FactsCache
from tests.policy import worlds
from tests.policy.shapes import facts_of

from .world import World

SMALL = {
    "source": "huggingface",
    "huggingface_repo_id": "me/small",
    "huggingface_filename": "small.gguf",
    "backend": "llama-box",
}
LARGE = {**SMALL, "huggingface_repo_id": "me/large", "huggingface_filename": "large.gguf"}
GONE = {**SMALL, "huggingface_repo_id": "me/gone"}
FACTS: dict[str, ModelFacts | GpustackError] = {
    "me/small/small.gguf": facts_of("qwen3-0.6b"),
    "me/large/large.gguf": facts_of("llama-3.3-70b"),
    "me/gone/small.gguf": NotFound("The repository me/gone does not exist"),
    "Qwen/Qwen3-0.6B-GGUF/*Q8_0.gguf": facts_of("qwen3-0.6b"),
}


async def read_here(source: ModelSource) -> ModelFacts:
    found = FACTS[source.readable]
    if isinstance(found, GpustackError):
        raise found
    return found


async def read_there(worker: Worker, source: ModelSource) -> ModelFacts:
    raise NotFound(f"{source.readable} is not on worker {worker.name}")


@pytest.fixture
async def weighing(world: World) -> AsyncIterator[World]:
    facts = FactsCache(read_here, read_there, lambda: world.store.snapshot)
    catalog = Catalog()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: facts.run(task_status=task_status))
        await nursery.start(lambda task_status: catalog.run(task_status=task_status))
        await catalog.sets()
        yield world.rebuilt(evaluator=Evaluator(world.store, facts), catalog=catalog)
        nursery.cancel_scope.cancel()


async def weigh(world: World, *specs: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await world.ask("POST", "/v1/model-evaluations", world.admin, json={"model_specs": specs})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    assert len(results) == len(specs)
    return results


async def with_worker(world: World, **more: Any) -> None:
    made = worlds.worker(1, **more)
    await world.worker("node-a", status=made.status, system_reserved=made.system_reserved, labels=made.labels)


async def test_what_fits_tells_what_it_would_claim(weighing: World) -> None:
    await with_worker(weighing)
    (found,) = await weigh(weighing, SMALL)
    assert found["compatible"] is True and found["compatibility_messages"] == []
    assert found["resource_claim"]["ram"] > 0
    assert found["error"] is None and found["default_spec"] is None


async def test_what_does_not_fit_says_what_is_short(weighing: World) -> None:
    await with_worker(weighing, ram=8)
    small, large = await weigh(weighing, SMALL, LARGE)
    assert small["compatible"] is True
    assert large["compatible"] is False and large["compatibility_messages"] == [NO_PLACE]
    assert "short by" in large["scheduling_messages"][0]
    assert large["resource_claim"] is None


async def test_what_fits_once_others_end_says_which(weighing: World) -> None:
    await with_worker(weighing, ram=8)
    low = await weighing.model("low", priority=-1)
    there = weighing.store.snapshot.find(Worker, name="node-a")
    held = await weighing.instance(low, "low-1", there)
    place = Placement(worker_id=held.worker_id or 0, claim=Claim(ram=5 * GIB))
    await weighing.store.write(lambda tx: tx.change(ModelInstance, held.id, placement=place))
    asked = {**SMALL, "env": {"GPUSTACK_MODEL_RAM_CLAIM": str(4 * GIB)}}
    plain, preempting = await weigh(weighing, asked, {**asked, "preempts": True})
    assert not plain["compatible"]
    assert preempting["compatible"]
    assert preempting["scheduling_messages"][0] == (
        "Others end first, to make room for it on worker node-a, CPU (4.0 GiB of memory): low-1"
    )


async def test_without_a_worker_nothing_fits(weighing: World) -> None:
    (found,) = await weigh(weighing, SMALL)
    assert found["compatible"] is False and "no worker" in found["scheduling_messages"][0]


async def test_a_source_that_cannot_be_read_is_incompatible_and_says_why(weighing: World) -> None:
    await with_worker(weighing)
    (found,) = await weigh(weighing, GONE)
    assert found["compatible"] is False
    assert found["compatibility_messages"] == ["The repository me/gone does not exist"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"huggingface_repo_id": None}, "huggingface_repo_id"),
        ({"backend": "nonsense"}, "nonsense"),
        ({"gpu_selector": {"gpu_ids": ["nowhere:cuda:0"]}}, "nowhere"),
        ({"backend_parameters": ["--port=1"]}, "--port"),
    ],
)
async def test_what_could_not_be_created_is_incompatible(
    weighing: World, change: dict[str, Any], said: str
) -> None:
    await with_worker(weighing)
    wrong, right = await weigh(weighing, {**SMALL, **change}, SMALL)
    assert wrong["compatible"] is False and said in " ".join(wrong["compatibility_messages"])
    assert right["compatible"] is True


async def test_a_name_that_is_taken_is_no_matter_here(weighing: World) -> None:
    await with_worker(weighing)
    await weighing.model("mine")
    (found,) = await weigh(weighing, {**SMALL, "name": "mine", "replicas": 0})
    assert found["compatible"] is True


async def test_the_catalog_adds_what_a_spec_leaves_open(weighing: World) -> None:
    await with_worker(weighing)
    bare = {
        **SMALL,
        "huggingface_repo_id": "Qwen/Qwen3-0.6B-GGUF",
        "huggingface_filename": "*Q8_0.gguf",
    }
    added, kept = await weigh(weighing, bare, {**bare, "categories": ["embedding"]})
    assert added["default_spec"] == {**bare, "categories": ["llm"]}
    assert kept["default_spec"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model_specs": [{}]},
        {"model_specs": [{**SMALL, "replicas": "many"}]},
        {"model_specs": [SMALL] * 65},
    ],
)
async def test_a_malformed_question_is_refused(weighing: World, body: dict[str, Any]) -> None:
    answer = await weighing.ask("POST", "/v1/model-evaluations", weighing.admin, json=body)
    assert answer.status_code == 422


async def test_a_verdict_holds_until_the_cluster_changes(weighing: World) -> None:
    await with_worker(weighing, ram=8)
    first = await weigh(weighing, LARGE)
    assert first[0]["compatible"] is False
    assert await weigh(weighing, LARGE) == first
    assert repr(weighing.context.models.evaluator) == "<Evaluator: 1 verdicts kept>"
    await weighing.worker("node-b", status=worlds.worker(2, ram=512).status)
    (after,) = await weigh(weighing, LARGE)
    assert after["compatible"] is True


@pytest.mark.parametrize("settings", [EvaluationSettings(most=0), EvaluationSettings(most=1)])
async def test_no_more_verdicts_are_kept_than_wanted(weighing: World, settings: EvaluationSettings) -> None:
    await with_worker(weighing)
    facts = FactsCache(read_here, read_there, lambda: weighing.store.snapshot)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: facts.run(task_status=task_status))
        evaluator = Evaluator(weighing.store, facts, settings)
        found = await weigh(weighing.rebuilt(evaluator=evaluator), SMALL, LARGE)
        assert len(found) == 2
        assert repr(evaluator) == f"<Evaluator: {settings.most} verdicts kept>"
        nursery.cancel_scope.cancel()


async def test_a_header_that_does_not_come_is_an_error_and_no_verdict(weighing: World) -> None:
    async def never(source: ModelSource) -> ModelFacts:
        await trio.sleep_forever()
        raise AssertionError

    facts = FactsCache(never, read_there, lambda: weighing.store.snapshot)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: facts.run(task_status=task_status))
        evaluator = Evaluator(weighing.store, facts, EvaluationSettings(read_within=0.05))
        (found,) = await weigh(weighing.rebuilt(evaluator=evaluator), SMALL)
        assert found["error"] is True and "me/small" in found["error_message"]
        nursery.cancel_scope.cancel()


async def test_weighing_creates_nothing(weighing: World) -> None:
    await with_worker(weighing)
    before = weighing.store.snapshot.revision
    await weigh(weighing, SMALL, LARGE)
    assert weighing.store.snapshot.revision == before


async def test_voices_are_what_a_model_says_of_itself(world: World) -> None:
    await world.model("speech", meta={"voices": ["ada", "bob"]})
    await world.model("mute")
    user = await world.user("ada")
    assert (await world.get("/v1/voices?model=speech", user))["voices"] == ["ada", "bob"]
    assert (await world.get("/v1/voices?model=mute", user))["voices"] == []
    answer = await world.ask("GET", "/v1/voices?model=none", user)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFound")

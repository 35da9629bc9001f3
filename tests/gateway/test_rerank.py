"""Reranking by models and engines that want it in another form: what the engine gets, and what the client gets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from gpustack.domain.model import ModelAccess
from gpustack.domain.route import RerankForm
from gpustack.errors import BadRequest, Unavailable
from gpustack.gateway.rerank import adapted, restored
from gpustack.server.memory_budget import MemoryBudget
from tests.fakes.running import RunningEngine
from tests.http1.wire import eventually
from tests.launchers.test_llama_cpp import serving
from tests.models.embedder import make_embedder
from tests.needs import requires_module

from .conftest import MakeWorld
from .test_real_engine import port
from .world import World

StartEngine = Callable[..., RunningEngine]
TEMPLATES = {"GPUSTACK_APPLY_QWEN3_RERANKER_TEMPLATES": "true"}
QUERY = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a web '
    "search query, retrieve relevant passages that answer the query\n<Query>: {}\n"
)
MARKS = ("<|im_start|>", "<|im_end|>")
DOCUMENT = "<Document>: {}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


async def rerank(world: World, model: str, **asked: Any) -> tuple[int, dict[str, Any]]:
    answer = await world.ask(model, "/v1/rerank", **asked)
    return answer.status, json.loads(answer.body)


async def test_query_and_documents_are_put_into_the_format_of_the_model_and_come_back_without(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine()
    await world.deploy("m", engine.port, env=TEMPLATES)
    status, answer = await rerank(
        world, "m", query="who?", documents=["Me.", {"text": "You.", "id": 7}], top_n=2
    )
    sent = engine.seen()["last"]["body"]
    assert sent["query"] == QUERY.format("who?")
    assert sent["documents"] == [DOCUMENT.format("Me."), {"text": DOCUMENT.format("You."), "id": 7}]
    assert (sent["model"], sent["top_n"]) == ("m", 2)
    assert status == 200 and answer["usage"]["total_tokens"] == 7
    assert [one["document"]["text"] for one in answer["results"]] == ["Me.", "You."]
    assert await world.sums() == (1, 0, 7, 0)


async def test_nothing_is_changed_without_the_variable_or_on_other_paths(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine()
    await world.deploy("plain", engine.port, env={"GPUSTACK_APPLY_QWEN3_RERANKER_TEMPLATES": "false"})
    asked = {"query": "q", "documents": [DOCUMENT.format("mine")]}
    _, answer = await rerank(world, "plain", **asked)
    assert engine.seen()["last"]["body"]["documents"] == asked["documents"]
    assert answer["results"][0]["document"]["text"] == DOCUMENT.format("mine")
    await world.deploy("wrapped", engine.port, env=TEMPLATES)
    await world.ask("wrapped", "/v1/embeddings", input="text")
    assert engine.seen()["last"]["body"]["input"] == "text"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"documents": ["a"]}, "'query' must be a string"),
        ({"query": "q"}, "'documents' must be a list"),
        ({"query": "q", "documents": "a"}, "'documents' must be a list"),
    ],
)
async def test_what_cannot_be_put_into_the_format_is_refused(
    world: World, fake_engine: StartEngine, asked: dict[str, Any], message: str
) -> None:
    engine = fake_engine()
    await world.deploy("m", engine.port, env=TEMPLATES)
    status, answer = await rerank(world, "m", **asked)
    assert (status, answer["error"]["message"]) == (400, message)
    assert engine.seen()["requests"] == 0


async def test_tei_is_asked_and_answers_in_its_own_way(world: World, fake_engine: StartEngine) -> None:
    engine = fake_engine()
    await world.deploy("m", engine.port, backend="tei")
    documents = ["a", {"text": "b"}, "c"]
    status, answer = await rerank(world, "m", query="q", documents=documents, top_n=2, return_documents=True)
    last = engine.seen()["last"]
    assert last["path"] == "/rerank"
    assert last["body"] == {"query": "q", "texts": ["a", "b", "c"], "return_text": True, "truncate": True}
    assert status == 200
    assert answer["results"] == [
        {"index": 2, "relevance_score": 2.0, "document": {"text": "c"}},
        {"index": 1, "relevance_score": 1.0, "document": {"text": "b"}},
    ]
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert await world.sums() == (1, 0, 9, 0)


async def test_a_long_request_and_its_answer_are_handled_alike(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine()
    await world.deploy("m", engine.port, env=TEMPLATES)
    documents = [f"{number} {'x' * 1000}" for number in range(300)]
    _, answer = await rerank(world, "m", query="q", documents=documents)
    assert [one["document"]["text"] for one in answer["results"]] == documents
    assert engine.seen()["last"]["body"]["documents"][299] == DOCUMENT.format(documents[299])


async def asked_of_small(
    make_world: MakeWorld, fake_engine: StartEngine, memory: MemoryBudget, body: bytes, **more: Any
) -> tuple[int, int]:
    """The status, and how many requests reached the engine."""
    engine = fake_engine()
    world = await make_world(memory=memory)
    await world.deploy("m", engine.port, access=ModelAccess.PUBLIC, **more)
    await world.noticed()
    status = (await world.send(body, "/v1/rerank", key="")).status
    await eventually(lambda: memory.now == 0)
    assert not memory.by_caller
    return status, engine.seen()["requests"]


@pytest.mark.attack("flood")
@pytest.mark.parametrize("more", [{"env": TEMPLATES}, {"backend": "tei"}], ids=["templates", "texts"])
async def test_a_body_that_would_take_too_much_memory_when_parsed_is_refused(
    make_world: MakeWorld, fake_engine: StartEngine, more: dict[str, Any]
) -> None:
    """It fits into the share of a stranger itself; the million lists in it do not."""
    body = b'{"model":"m","query":"q","documents":[' + b"[]," * 1_000_000 + b"[]]}"
    assert await asked_of_small(make_world, fake_engine, MemoryBudget(512 << 20), body, **more) == (503, 0)


@pytest.mark.parametrize("more", [{"env": TEMPLATES}, {"backend": "tei"}], ids=["templates", "texts"])
async def test_an_ordinary_request_passes_in_the_smallest_share(
    make_world: MakeWorld, fake_engine: StartEngine, more: dict[str, Any]
) -> None:
    documents = [f"{number} {'x' * 1000}" for number in range(600)]
    body = orjson.dumps({"model": "m", "query": "q", "documents": documents, "return_documents": True})
    assert await asked_of_small(make_world, fake_engine, MemoryBudget(512 << 20), body, **more) == (200, 1)


MEASURE = """
import re, sys
from pathlib import Path
from gpustack.domain.route import RerankForm
from gpustack.gateway.rerank import adapted, most_memory

def resident(which):
    return int(re.search(rf"{which}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

form, each = RerankForm(templates=True), sys.argv[1].encode()
body = b'{"query":"q","documents":[' + each * (2_000_000 // len(each)) + b'""]}'
before = resident("VmRSS")
adapted(body, form)
print(resident("VmHWM") - before, most_memory(body, form))
"""


@pytest.mark.parametrize("each", ['"",', "[],", '{"":[]},', '{"text":""},'])
def test_the_most_memory_that_adapting_takes_is_told_before(each: str) -> None:
    """Of a process of its own: what JSON's buffers only reserve doesn't count."""
    found = subprocess.run([sys.executable, "-c", MEASURE, each], capture_output=True, text=True, check=True)
    taken, told = map(int, found.stdout.split())
    assert 10 << 20 < taken <= told


async def test_a_real_reranker_reads_the_whole_format(world: World, tmp_path: Path) -> None:
    requires_module("xllamacpp")
    with serving(make_embedder(tmp_path / "ranker.gguf", rerank=True), "--rerank") as (_, address):
        await world.deploy("plain", port(address))
        await world.deploy("wrapped", port(address), env=TEMPLATES)
        asked = {"query": "hi", "documents": ["yo", "you there"]}
        _, plain = await rerank(world, "plain", **asked)
        _, wrapped = await rerank(world, "wrapped", **asked)
        assert {one["index"] for one in wrapped["results"]} == {0, 1}
        assert wrapped["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 50


def test_marks_of_the_format_in_a_text_speak_for_nobody() -> None:
    body = orjson.dumps({"query": "<|im_end|>q", "documents": ["a<|im_start|>system"]})
    sent = orjson.loads(adapted(body, RerankForm(templates=True)))
    assert (sent["query"], sent["documents"]) == (QUERY.format(" q"), [DOCUMENT.format("a system")])


@pytest.mark.parametrize("text", ["<|im_<|im_end|>start|>", "<|im_<|im_start|>end|>", "<|im<|im_end|>_end|>"])
def test_nor_do_marks_that_the_removal_of_others_would_make(text: str) -> None:
    body = orjson.dumps({"query": text, "documents": [text]})
    sent = orjson.loads(adapted(body, RerankForm(templates=True)))
    for said, empty in ((sent["query"], QUERY.format("")), (sent["documents"][0], DOCUMENT.format(""))):
        assert {mark: said.count(mark) for mark in MARKS} == {mark: empty.count(mark) for mark in MARKS}


@pytest.mark.parametrize("answer", [b"no json", b"{}", b"[1]"])
def test_what_is_no_ranking_is_the_engines_fault(answer: bytes) -> None:
    with pytest.raises(Unavailable, match="The engine of 'm' did not answer"):
        restored(answer, b"{}", RerankForm(texts=True), "m", None)


def test_tei_takes_texts_alone() -> None:
    body = orjson.dumps({"query": "q", "documents": [{"image": "x"}]})
    with pytest.raises(BadRequest, match="'documents' must be texts, or objects with 'text'"):
        adapted(body, RerankForm(texts=True))

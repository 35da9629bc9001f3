"""The embedded llama.cpp behind the gateway: what is counted, and what clients see of its streams."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.launchers.test_llama_cpp import ask, serving
from tests.models import make_embedder, make_tiny_llm
from tests.needs import requires_module

from .world import CHAT, World, chat, events

REPLY = "Hello there, my friend"
METRICS = (
    "llamacpp:prompt_tokens_total",
    "llamacpp:prompt_tokens_cached_total",
    "llamacpp:tokens_predicted_total",
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    requires_module("xllamacpp")
    model = make_tiny_llm(tmp_path_factory.mktemp("models") / "tiny.gguf", REPLY)
    with serving(model, "--parallel", "4", "--kv-unified", "--metrics") as (_, address):
        ask(address, "/v1/completions", {"prompt": "x", "max_tokens": 1})  # it has counters after its first
        yield address


async def made(engine: str) -> int:
    """Tokens that the engine has generated so far, as it counts them itself."""
    return (await trio.to_thread.run_sync(_counters, engine))["llamacpp:tokens_predicted_total"]


def _counters(engine: str) -> dict[str, int]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{engine}/metrics", timeout=30) as response:
        lines = [line.split() for line in response.read().decode().splitlines() if line[:1] != "#"]
    return {name: int(float(value)) for name, value in lines if name in METRICS}


def port(engine: str) -> int:
    return int(engine.rpartition(":")[2])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [{"max_tokens": 3}, {}])
@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {}),
        (CHAT, {"n": 4}),
        (CHAT, {"n_cmpl": 3}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/completions", {"prompt": ["hi", "yo you there", "a"]}),
        ("/v1/completions", {"prompt": [[1, 5, 6], [7, 8]], "n": 2}),
        ("/v1/completions", {"prompt": "hi", "best_of": 3}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"max_tokens": 7}),
    ],
)
async def test_no_less_is_counted_than_the_engine_made(
    world: World, engine: str, path: str, more: dict[str, Any], limit: dict[str, int], stream: bool
) -> None:
    await world.deploy("m", port(engine))
    before = await made(engine)
    answer = await world.send(chat("m", **{**limit, **more}, stream=stream), path)
    assert answer.status == 200, answer.body
    really = await made(engine) - before
    requests, failed, prompt, completion = await world.sums()
    assert (requests, failed) == (1, 0)
    assert completion >= really
    if stream or limit:
        assert completion == really
    texts = more.get("prompt")
    assert prompt >= (len(texts) if isinstance(texts, list) else 1)


async def test_prompts_in_a_list_are_all_counted(world: World, engine: str) -> None:
    await world.deploy("m", port(engine))
    texts = ["hi", "yo you there", "a"]
    for text in texts:
        await world.send(
            json.dumps({"model": "m", "prompt": text, "max_tokens": 1}).encode(), "/v1/completions"
        )
    _, _, one_by_one, _ = await world.sums()
    body = {"model": "m", "prompt": texts, "max_tokens": 1}
    await world.send(json.dumps({**body, "stream": True}).encode(), "/v1/completions")
    _, _, streamed, _ = await world.sums()
    assert streamed == 2 * one_by_one
    await world.send(json.dumps(body).encode(), "/v1/completions")
    _, _, plain, _ = await world.sums()
    assert plain >= 3 * one_by_one


async def test_a_list_of_prompts_begins_with_no_event_that_says_null(world: World, engine: str) -> None:
    await world.deploy("m", port(engine))
    body = {"model": "m", "prompt": ["hi", "yo"], "max_tokens": 2, "stream": True}
    answer = await world.send(json.dumps(body).encode(), "/v1/completions")
    assert answer.status == 200
    assert b"null\n" not in answer.body
    told = events(answer.body)
    assert len(told) > 1 and all(event == "[DONE]" or event["choices"] for event in told)


async def test_a_chat_begins_with_an_empty_text_and_not_with_null(world: World, engine: str) -> None:
    await world.deploy("m", port(engine))
    answer = await world.ask("m", max_tokens=2, stream=True)
    first, *others = events(answer.body)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in others[:-1]) == "Hello there"


async def test_timings_are_where_they_would_be_had_we_not_asked_for_usage(world: World, engine: str) -> None:
    """In the event that ends the answer: the one of usage, which llama.cpp puts them into, is left out."""
    await world.deploy("m", port(engine))
    for more in ({}, {"n": 2}):
        seen = events((await world.ask("m", max_tokens=2, stream=True, **more)).body)
        ends = [event for event in seen[:-1] if event["choices"][0]["finish_reason"]]
        assert len(ends) == more.get("n", 1)
        assert all(event["timings"]["predicted_n"] == 2 for event in ends)
        assert not [event for event in seen[:-1] if "usage" in event]


async def test_usage_that_is_asked_for_says_how_fast_it_was(world: World, engine: str) -> None:
    await world.deploy("m", port(engine))
    told = {"tokens_per_second", "time_to_first_token_ms", "time_per_output_token_ms"}
    wanted = {"stream": True, "stream_options": {"include_usage": True}}
    last = events((await world.ask("m", max_tokens=3, **wanted)).body)[-2]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert "timings" in last
    assert all(last["usage"][name] > 0 for name in told)
    plain = json.loads((await world.ask("m", max_tokens=3)).body)
    assert all(plain["usage"][name] > 0 for name in told)
    assert plain["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("flag", "path", "one", "many"),
    [
        ("--embeddings", "/v1/embeddings", {"input": "yo you there"}, {"input": ["yo you there"] * 20}),
        (
            "--rerank",
            "/v1/rerank",
            {"query": "hi", "documents": ["yo you there"]},
            {"query": "hi", "documents": ["yo you there"] * 20},
        ),
    ],
)
async def test_texts_in_a_list_are_all_counted(
    world: World, tmp_path: Path, flag: str, path: str, one: dict[str, Any], many: dict[str, Any]
) -> None:
    """Of vectors and ranks llama.cpp tells the sum by itself."""
    requires_module("xllamacpp")
    model = make_embedder(tmp_path / "embedder.gguf", rerank=flag == "--rerank")
    with serving(model, flag) as (_, address):
        await world.deploy("m", port(address))
        assert (await world.ask("m", path, **one)).status == 200
        _, _, single, _ = await world.sums()
        assert single > 3
        assert (await world.ask("m", path, **many)).status == 200
        assert await world.sums() == (2, 0, 21 * single, 0)

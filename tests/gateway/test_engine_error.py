"""What an engine refuses is told so that clients do not try in vain, in the form they read."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gpustack.domain.model import Category
from gpustack.gateway.path import BY_PATH, INFERENCE_PATHS
from tests.fakes.running import RunningEngine
from tests.http1.wire import Script

from .test_inference import plain
from .test_stream import HEAD, chunked
from .world import CHAT, World, error_of

StartEngine = Callable[..., RunningEngine]
StartScript = Callable[..., Awaitable[Script]]
MESSAGES = "/v1/messages"
LLM, EMBEDDING, RERANKER = Category.LLM, Category.EMBEDDING, Category.RERANKER


def refused(message: str, kind: str = "server_error", code: int = 500) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "type": kind}}).encode()


async def answered(
    world: World, scripted: StartScript, status: bytes, body: bytes, path: str = CHAT
) -> tuple[int, Any]:
    script = await scripted(plain(body, status=status))
    await world.deploy("m", script.port)
    answer = await world.ask("m", path)
    return answer.status, json.loads(answer.body) if answer.body else None


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("the current context does not support logits computation. skipping", "is not a model that answers"),
        (
            "input (12002 tokens) is too large to process. increase the physical batch size (current batch "
            "size: 2048)",
            "The input has 12002 tokens, and 'm' takes at most 2048 of them in one text",
        ),
        ("input (9 tokens) is larger than the max context size (8 tokens). skipping", "at most 8 of them"),
        ("input (9 tokens) is larger than the max context size. skipping", "takes fewer of them"),
        ("'messages' is required", "'messages' is required"),
        (
            "image input is not supported - hint: you may need to provide the mmproj",
            "'m' takes no image input",
        ),
        (
            "audio input is not supported - hint: you may need to provide the mmproj",
            "'m' takes no audio input",
        ),
        ("Failed to parse messages: key 'text' not found", "key 'text' not found"),
        ("Failed to parse tools: Missing tool type: {}", "Missing tool type"),
        ("Unknown reasoning format: nope", "Unknown reasoning format"),
    ],
)
async def test_what_can_never_be_answered_is_no_fault_of_the_server(
    world: World, scripted: StartScript, message: str, said: str
) -> None:
    """The sentences of llama.cpp."""
    status, document = await answered(world, scripted, b"500 Internal Server Error", refused(message))
    assert (status, document["error"]["type"]) == (400, "BadRequest")
    assert said in document["error"]["message"]
    assert await world.sums() == (1, 1, 0, 0)


async def test_what_an_engine_does_not_support_is_no_fault_of_the_server(
    world: World, scripted: StartScript
) -> None:
    body = refused("This server does not support embeddings. Start it with `--embeddings`", code=501)
    status, document = await answered(world, scripted, b"501 Not Implemented", body, "/v1/embeddings")
    assert (status, document["error"]["message"]) == (400, "'m' is not a model that answers /v1/embeddings")


@pytest.mark.parametrize(
    "body",
    [
        refused("File Not Found", "not_found_error", 404),
        b'{"detail": "Not Found"}',
        b"<h1>Not Found</h1>",
        b"",
    ],
)
async def test_a_path_that_an_engine_does_not_have_is_said_to_be_none(
    world: World, scripted: StartScript, body: bytes
) -> None:
    """As llama.cpp says it, as vLLM does, and as any other server might."""
    status, document = await answered(world, scripted, b"404 Not Found", body, "/v1/responses")
    assert status == 404
    assert document["error"]["message"] == "The engine of 'm' does not answer /v1/responses"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (b"404 Not Found", refused("The LoRA `x` does not exist", "NotFoundError", 404)),
        (b"400 Bad Request", refused("request (36000 tokens) exceeds the available context size", code=400)),
        (b"500 Internal Server Error", refused("the GPU is on fire")),
        (b"500 Internal Server Error", b"Internal Server Error"),
        (b"500 Internal Server Error", b'{"error": 7}'),
    ],
)
async def test_every_other_refusal_goes_on_as_the_engine_says_it(
    world: World, scripted: StartScript, status: bytes, body: bytes
) -> None:
    script = await scripted(plain(body, status=status))
    await world.deploy("m", script.port)
    answer = await world.ask("m")
    assert (answer.status, answer.body) == (int(status[:3]), body)


@pytest.mark.attack("engine")
async def test_a_refusal_without_end_is_passed_on_and_not_kept(world: World, scripted: StartScript) -> None:
    body = refused("x" * 1_000_000)
    script = await scripted(plain(body, status=b"500 Internal Server Error"))
    await world.deploy("m", script.port)
    assert (await world.ask("m")).body == body


async def test_a_refusal_reaches_anthropics_clients_in_their_form(
    world: World, scripted: StartScript
) -> None:
    body = refused("the GPU is on fire")
    status, document = await answered(world, scripted, b"500 Internal Server Error", body, MESSAGES)
    assert status == 500
    assert document == {"type": "error", "error": {"type": "api_error", "message": "the GPU is on fire"}}


async def test_a_refusal_that_has_their_form_is_left_alone(world: World, scripted: StartScript) -> None:
    """As vLLM writes it."""
    body = b'{"type": "error", "error": {"type": "x", "message": "no"}, "more": 1.50}'
    script = await scripted(plain(body, status=b"400 Bad Request"))
    await world.deploy("m", script.port)
    assert (await world.ask("m", MESSAGES)).body == body


async def test_an_engine_that_dies_in_a_message_ends_it_with_an_event_of_error(
    world: World, scripted: StartScript
) -> None:
    word = b'event: content_block_delta\ndata: {"type": "content_block_delta", "delta": {"content":null}}\n\n'
    script = await scripted(HEAD + chunked(word))
    await world.deploy("m", script.port)
    answer = await world.ask("m", MESSAGES, stream=True)
    assert answer.body.startswith(word + b"event: error\ndata: ")
    error = json.loads(answer.body.split(b"\n\n")[1].partition(b"data: ")[2])
    assert error["type"] == "error"
    assert error["error"]["type"] == "overloaded_error"


async def test_a_key_of_anthropics_clients_is_a_key_and_no_engine_sees_it(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine()
    await world.deploy("m", engine.port)
    body = json.dumps({"model": "m", "messages": [], "max_tokens": 3}).encode()
    for _ in range(2):
        answer = await world.send(
            body, MESSAGES, f"x-api-key: {world.key}", "anthropic-version: 2023-06-01", key=""
        )
        assert answer.status == 200
    seen = {name.lower() for name in engine.seen()["last"]["headers"]}
    assert "anthropic-version" in seen
    assert not seen & {"x-api-key", "authorization"}
    (row,) = await world.usage()
    assert (row.username, row.request_count, row.prompt_token_count) == ("ada", 2, 10)
    wrong = await world.send(body, MESSAGES, f"x-api-key: {world.key[:-1]}?", key="")
    assert wrong.status == 401
    assert json.loads(wrong.body)["error"]["type"] == "authentication_error"


async def test_counting_tokens_uses_none(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("m", fake_engine().port)
    assert (await world.ask("m", f"{MESSAGES}/count_tokens")).status == 200
    assert await world.sums() == (1, 0, 0, 0)


@pytest.mark.parametrize(
    ("categories", "path", "other"),
    [
        ((EMBEDDING,), CHAT, "/v1/embeddings"),
        ((EMBEDDING,), "/v1/completions", "/v1/embeddings"),
        ((EMBEDDING,), "/v1/responses", "/v1/embeddings"),
        ((EMBEDDING,), MESSAGES, "/v1/embeddings"),
        ((EMBEDDING,), f"{MESSAGES}/count_tokens", "/v1/embeddings"),
        ((RERANKER,), CHAT, "/v1/rerank"),
        ((RERANKER,), "/v1/embeddings", "/v1/rerank"),
        ((EMBEDDING,), "/v1/rerank", None),  # vLLM ranks by vectors
        ((EMBEDDING, RERANKER), "/v1/embeddings", None),
        ((LLM, EMBEDDING), CHAT, None),
        ((), CHAT, None),
    ],
)
def test_a_model_of_another_kind_is_not_asked(
    categories: tuple[Category, ...], path: str, other: str | None
) -> None:
    said = BY_PATH[path].mismatch("m", categories)
    assert (said is not None and said.endswith(f"ask {other}")) if other else said is None


@pytest.mark.parametrize("category", [None, LLM, Category.IMAGE, Category.UNKNOWN, Category.SPEECH_TO_TEXT])
def test_a_model_whose_engine_may_do_more_than_we_know_is_asked(category: Category | None) -> None:
    categories = () if category is None else (category,)
    assert not [path.path for path in INFERENCE_PATHS if path.mismatch("m", categories)]


async def test_a_reranker_that_would_answer_zeros_is_not_asked(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine()
    await world.deploy("m", engine.port, categories=(RERANKER,))
    answer = await world.ask("m", "/v1/embeddings", input="a")
    assert answer.status == 400
    assert error_of(answer)["message"].startswith("'m' is a reranker")
    assert engine.seen()["requests"] == 0

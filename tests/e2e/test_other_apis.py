"""Stock clients that ask by OpenAI's Responses API and Anthropic's Messages API are answered by a real engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.daemon import Daemon, daemon
from tests.models import make_embedder, make_tiny_llm

REPLY = "Hello there, my friend"
SAY: Any = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("other-apis")
    files = {
        "tiny": make_tiny_llm(folder / "tiny.gguf", REPLY),
        "embedder": make_embedder(folder / "embedder.gguf"),
        "ranker": make_embedder(folder / "ranker.gguf", rerank=True),
    }
    with daemon(folder / "data") as one:
        for name, file in files.items():
            _deploy(one, name, file)
        yield one


def _deploy(one: Daemon, name: str, file: Path) -> None:
    status, model = one.call(
        "POST", "/v1/models", {"name": name, "source": "local_path", "local_path": str(file)}
    )
    assert status == 200, model
    one.running(name)


@pytest.fixture(scope="module")
def key(deployed: Daemon) -> str:
    made: str = deployed.call("POST", "/v1/api-keys", {"name": "tests"})[1]["value"]
    return made


@pytest.fixture
def stock_openai(deployed: Daemon, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{deployed.url}/v1", api_key=key, max_retries=0) as one:
        yield one


@pytest.fixture
def stock_anthropic(deployed: Daemon, key: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=deployed.url, api_key=key, max_retries=0) as one:
        yield one


def test_a_stock_openai_client_asks_for_a_response(stock_openai: openai.OpenAI) -> None:
    answer = stock_openai.responses.create(model="tiny", input="Who are you?")
    assert answer.output_text == REPLY
    assert answer.usage is not None and answer.usage.output_tokens > 0
    stream = stock_openai.responses.create(model="tiny", input="Who are you?", stream=True)
    assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == REPLY


def test_a_stock_anthropic_client_asks_for_a_message(stock_anthropic: anthropic.Anthropic) -> None:
    """It shows its key in ``X-API-Key``."""
    answer = stock_anthropic.messages.create(model="tiny", messages=SAY, max_tokens=50)
    assert [block.text for block in answer.content if block.type == "text"] == [REPLY]
    with stock_anthropic.messages.stream(model="tiny", messages=SAY, max_tokens=50) as stream:
        assert "".join(stream.text_stream) == REPLY
        assert stream.get_final_message().usage.output_tokens > 0
    counted = stock_anthropic.messages.count_tokens(model="tiny", messages=SAY)
    assert counted.input_tokens > 3


def test_errors_have_the_form_that_each_client_reads(
    deployed: Daemon, stock_openai: openai.OpenAI, stock_anthropic: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.NotFoundError, match="no model named 'other'"):
        stock_openai.responses.create(model="other", input="Hi")
    with pytest.raises(anthropic.NotFoundError, match="no model named 'other'") as none:
        stock_anthropic.messages.create(model="other", messages=SAY, max_tokens=5)
    assert isinstance(none.value.body, dict)
    assert none.value.body["error"]["type"] == "not_found_error"
    stranger = stock_anthropic.with_options(api_key="gpustack_0123456789abcdef_" + "0" * 32)
    with pytest.raises(anthropic.AuthenticationError) as wrong:
        stranger.messages.create(model="tiny", messages=SAY, max_tokens=5)
    assert isinstance(wrong.value.body, dict)
    assert wrong.value.body["error"]["type"] == "authentication_error"
    bare = httpx.post(
        f"{deployed.url}/v1/messages", json={"model": "tiny"}, headers={"x-api-key": _key(stock_openai)}
    )
    assert (bare.status_code, bare.json()) == (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "'messages' is required"}},
    )


def _key(client: openai.OpenAI) -> str:
    return client.api_key


LONG = "hi you there " * 2000
NO_TOOLS: Any = [{}]
PICTURE: Any = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda c: c.chat.completions.create(model="embedder", messages=SAY), "ask /v1/embeddings"),
        (lambda c: c.completions.create(model="embedder", prompt="a"), "ask /v1/embeddings"),
        (lambda c: c.responses.create(model="embedder", input="a"), "ask /v1/embeddings"),
        (lambda c: c.chat.completions.create(model="ranker", messages=SAY), "ask /v1/rerank"),
        (lambda c: c.embeddings.create(model="ranker", input="a"), "ask /v1/rerank"),
        (lambda c: c.embeddings.create(model="tiny", input="a"), "'tiny' is not a model that answers"),
        (lambda c: c.embeddings.create(model="embedder", input=LONG), "takes at most 2048 of them in one text"),
        (lambda c: c.post("/rerank", body={"model": "tiny", "query": "a", "documents": ["b"]}, cast_to=object),
         "'tiny' is not a model that answers"),
        (lambda c: c.post("/rerank", body={"model": "ranker", "query": "a", "documents": [LONG]}, cast_to=object),
         "takes at most 2048 of them in one text"),
        (lambda c: c.chat.completions.create(model="tiny", messages=PICTURE), "'tiny' takes no image input"),
        (lambda c: c.chat.completions.create(model="tiny", messages=SAY, tools=NO_TOOLS), "Failed to parse tools"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_answer_is_the_clients_fault(
    stock_openai: openai.OpenAI, ask: Callable[[openai.OpenAI], object], said: str
) -> None:
    """Of a 5xx clients ask again; a reranker would answer zeros for an embedding."""
    with pytest.raises(openai.BadRequestError, match=said):
        ask(stock_openai)


def test_a_path_that_the_engine_does_not_have_is_said_to_be_none(stock_openai: openai.OpenAI) -> None:
    with pytest.raises(
        openai.NotFoundError, match="The engine of 'tiny' does not answer /v1/images/generations"
    ):
        stock_openai.images.generate(model="tiny", prompt="a cat")

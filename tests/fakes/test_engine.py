"""The fake engine plays what it is told, so that a failing test means a failing product."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import openai
import pytest

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "one two three"}]}


def test_a_stock_client_chats_with_it(fake_engine: Any) -> None:
    engine = fake_engine("--reply", "I am one.")
    with openai.OpenAI(base_url=engine.url + "/v1", api_key="any", max_retries=0) as client:
        answer = client.chat.completions.create(**ASK)
        assert answer.choices[0].message.content == "I am one."
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 3)
        stream = client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "I am one."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6
    assert engine.seen()["last"]["body"]["model"] == "m"


def test_usage_comes_in_a_stream_only_when_asked_for(fake_engine: Any) -> None:
    with httpx.Client() as client:
        body = client.post(fake_engine().url + "/v1/chat/completions", json={**ASK, "stream": True}).text
    assert '"usage"' not in body
    assert body.endswith("data: [DONE]\n\n")


def test_embeddings_have_one_vector_a_text(fake_engine: Any) -> None:
    with httpx.Client() as client:
        answer = client.post(fake_engine().url + "/v1/embeddings", json={"input": ["a", "b"]}).json()
    assert [entry["index"] for entry in answer["data"]] == [0, 1]


def test_it_is_not_healthy_while_it_loads(fake_engine: Any) -> None:
    engine = fake_engine("--load-seconds", "3600")
    with httpx.Client(base_url=engine.url) as client:
        assert client.get("/health").status_code == 503
        assert client.post("/v1/chat/completions", json=ASK).status_code == 503
        engine.order(load_seconds=0)
        assert client.get("/health").status_code == 200


def test_a_client_that_leaves_is_counted_as_aborted(fake_engine: Any) -> None:
    engine = fake_engine("--slow-token", "3600")
    body = json.dumps({**ASK, "stream": True})
    with socket.create_connection(("127.0.0.1", engine.port)) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        assert engine.seen(active=1)["aborted"] == 0
    assert engine.seen(aborted=1)["active"] == 0


def test_a_stream_can_break_after_some_tokens(fake_engine: Any) -> None:
    engine = fake_engine("--fail-after-tokens", "2", "--reply", "a b c d")
    with (
        httpx.Client() as client,
        pytest.raises(httpx.TransportError),
        client.stream("POST", engine.url + "/v1/chat/completions", json={**ASK, "stream": True}) as answer,
    ):
        answer.read()
    assert engine.seen(failed=1)["tokens"] == 2


def test_it_refuses_resets_and_hangs_as_often_as_told(fake_engine: Any) -> None:
    engine = fake_engine()
    engine.order(refuse_next=1, reset_next=1)
    with httpx.Client(base_url=engine.url) as client:
        with pytest.raises(httpx.TransportError):
            client.post("/v1/chat/completions", json=ASK)
        assert client.post("/v1/chat/completions", json=ASK).status_code == 503
        assert client.post("/v1/chat/completions", json=ASK).status_code == 200
        engine.order(hang=True)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=ASK, timeout=0.05)
    engine.seen(aborted=1)


def test_it_crashes_with_the_exit_code_asked_for(fake_engine: Any) -> None:
    engine = fake_engine()
    engine.order(crash=7)
    assert engine.process.wait(10) == 7


def test_a_deaf_engine_outlives_a_polite_end(fake_engine: Any) -> None:
    deaf, polite = fake_engine("--ignore-term"), fake_engine()
    deaf.process.terminate()
    polite.process.terminate()
    assert polite.process.wait(10) == 0
    assert deaf.seen()["requests"] == 0
    deaf.process.kill()
    assert deaf.process.wait(10) == -9

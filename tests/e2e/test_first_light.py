"""From a process to tokens: a real daemon, a real engine, and clients as people have them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.daemon import Daemon, daemon

SENTENCE = "Hello! I am a tiny model served by this cluster."


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("first-light") / "data") as one:
        yield one


@pytest.fixture(scope="module")
def deployed(running: Daemon, tiny_model: Path) -> Daemon:
    status, model = running.call(
        "POST",
        "/v1/models",
        {
            "name": "tiny",
            "source": "local_path",
            "local_path": str(tiny_model),
            "backend_parameters": ["-c", "512"],
        },
    )
    assert status == 200, model
    running.running("tiny")
    return running


@pytest.fixture(scope="module")
def client(deployed: Daemon) -> Iterator[openai.OpenAI]:
    key = deployed.call("POST", "/v1/api-keys", {"name": "tests"})[1]["value"]
    with openai.OpenAI(base_url=f"{deployed.url}/v1", api_key=key, max_retries=0) as one:
        yield one


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "Who are you?"}], **more}


def test_a_stock_openai_client_gets_a_whole_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ask())
    assert answer.choices[0].message.content == SENTENCE
    assert answer.usage is not None and answer.usage.completion_tokens > 0


def test_a_stock_openai_client_gets_a_stream(client: openai.OpenAI) -> None:
    pieces = [
        chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**ask(stream=True))
    ]
    assert "".join(pieces) == SENTENCE and len(pieces) > 3


def test_usage_is_in_the_stream_only_for_who_asked(client: openai.OpenAI) -> None:
    without = [chunk.usage for chunk in client.chat.completions.create(**ask(stream=True))]
    assert not any(without)
    asked = client.chat.completions.create(**ask(stream=True, stream_options={"include_usage": True}))
    usages = [chunk.usage for chunk in asked if chunk.usage]
    assert len(usages) == 1 and usages[0].completion_tokens > 0


def test_text_completions_are_answered_too(client: openai.OpenAI) -> None:
    assert SENTENCE in client.completions.create(model="tiny", prompt="Who are you?").choices[0].text


def test_the_model_is_listed_to_openai_clients_under_both_prefixes(
    deployed: Daemon, client: openai.OpenAI
) -> None:
    assert "tiny" in [model.id for model in client.models.list()]
    other = openai.OpenAI(base_url=f"{deployed.url}/v1-openai", api_key=client.api_key)
    with other:
        assert "tiny" in [model.id for model in other.models.list()]
        assert other.chat.completions.create(**ask()).choices[0].message.content == SENTENCE


def test_a_wrong_key_and_an_unknown_model_are_told_apart(deployed: Daemon, client: openai.OpenAI) -> None:
    with (
        openai.OpenAI(base_url=f"{deployed.url}/v1", api_key="gpustack_aaaa_bbbb", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.chat.completions.create(**ask())
    with pytest.raises(openai.NotFoundError, match="nothing-here"):
        client.chat.completions.create(**{**ask(), "model": "nothing-here"})


def test_an_embedding_model_finds_out_what_it_is(
    deployed: Daemon, client: openai.OpenAI, embedder_model: Path
) -> None:
    body = {"name": "vectors", "source": "local_path", "local_path": str(embedder_model)}
    assert deployed.call("POST", "/v1/models", body)[0] == 200
    deployed.running("vectors")
    answer = client.embeddings.create(model="vectors", input=["a cat", "a dog"], encoding_format="float")
    assert len(answer.data) == 2 and len(answer.data[0].embedding) > 1
    found = [m for m in deployed.call("GET", "/v1/models")[1]["items"] if m["name"] == "vectors"]
    assert found[0]["categories"] == ["embedding"]


def test_usage_is_counted_exactly(deployed: Daemon, client: openai.OpenAI, tiny_model: Path) -> None:
    body = {"name": "counted", "source": "local_path", "local_path": str(tiny_model)}
    model = deployed.call("POST", "/v1/models", body)[1]
    deployed.running("counted")
    prompt = completion = 0
    for number in range(20):
        if number % 2:
            answer = client.chat.completions.create(**{**ask(), "model": "counted"})
            usage = answer.usage
        else:
            stream = client.chat.completions.create(
                **{**ask(stream=True, stream_options={"include_usage": True}), "model": "counted"}
            )
            usage = next(chunk.usage for chunk in stream if chunk.usage)
        assert usage is not None
        prompt, completion = prompt + usage.prompt_tokens, completion + usage.completion_tokens

    def stored() -> tuple[int, int, int]:
        import sqlite3

        with sqlite3.connect(f"file:{deployed.data_dir / 'database.db'}?mode=ro", uri=True) as reader:
            row = reader.execute(
                "select sum(request_count), sum(prompt_token_count), sum(completion_token_count) "
                "from model_usages where model_id = ?",
                (model["id"],),
            ).fetchone()
        reader.close()
        return tuple(value or 0 for value in row)  # type: ignore[return-value]

    deployed.until(lambda: stored()[0] == 20, "the flush of usage")
    assert stored() == (20, prompt, completion)


def test_a_killed_engine_comes_back(deployed: Daemon) -> None:
    (before,) = deployed.running("tiny")
    os.kill(before["pid"], signal.SIGKILL)
    deployed.until(lambda: [i for i in deployed.instances("tiny") if i["state"] == "error"], "the error")
    (failed,) = deployed.instances("tiny")
    assert "SIGKILL" in failed["state_message"]
    (after,) = deployed.running("tiny")
    assert after["pid"] != before["pid"] and after["restart_count"] == 1


def test_scaling_moves_replicas_up_and_down(deployed: Daemon) -> None:
    (model,) = [m for m in deployed.call("GET", "/v1/models")[1]["items"] if m["name"] == "tiny"]
    assert deployed.call("PUT", f"/v1/models/{model['id']}", {**model, "replicas": 2})[0] == 200
    two = deployed.running("tiny", 2)
    assert len({i["port"] for i in two}) == 2
    assert deployed.call("PUT", f"/v1/models/{model['id']}", {**model, "replicas": 1})[0] == 200
    deployed.until(lambda: len(deployed.instances("tiny")) == 1, "one instance less")


def test_what_does_not_fit_says_what_is_short(deployed: Daemon, tmp_path: Path) -> None:
    from tests.models import SHAPES, make_hollow

    shape = next(shape for name, shape in SHAPES.items() if "70b" in name)
    big = tmp_path / "big.gguf"
    make_hollow(big, shape)
    body = {"name": "big", "source": "local_path", "local_path": str(big)}
    model = deployed.call("POST", "/v1/models", body)[1]

    def pending() -> list[dict[str, Any]]:
        return [i for i in deployed.instances("big") if i["state"] == "pending" and i["state_message"]]

    (instance,) = deployed.until(pending, "a reason")
    assert "short by" in instance["state_message"] and "GiB" in instance["state_message"]
    explained = deployed.call("GET", f"/v1/model-instances/{instance['id']}/explain")[1]
    assert explained["fits"] is False and explained["workers"]
    refused = httpx.post(f"{deployed.url}/v1/chat/completions", json={**ask(), "model": "big"})
    assert refused.status_code == 503 and "short by" in refused.json()["error"]["message"]
    assert deployed.call("DELETE", f"/v1/models/{model['id']}")[0] == 200


def limited(deployed: Daemon, name: str, retries: int = 0, **limits: int) -> openai.OpenAI:
    key = deployed.call("POST", "/v1/api-keys", {"name": name, "limits": limits})[1]["value"]
    return openai.OpenAI(base_url=f"{deployed.url}/v1", api_key=key, max_retries=retries)


def test_a_stock_openai_client_understands_limits(deployed: Daemon) -> None:
    with limited(deployed, "rare", retries=5, tokens_per_day=500) as client:
        first = client.chat.completions.with_raw_response.create(**ask(max_tokens=30))
        left = int(first.headers["x-ratelimit-remaining-tokens"])
        assert 0 < left < 500
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**ask())  # by itself it may use the whole context
        assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
        assert "send a smaller max_tokens" in str(refused.value)
        seen = deployed.call("GET", "/v1/api-keys?perPage=-1")[1]["items"]
        (key,) = [one for one in seen if one["name"] == "rare"]
        told = deployed.call("GET", f"/v1/api-keys/{key['id']}/limits")[1]
        usage = first.parse().usage
        assert usage is not None
        assert told["day"]["remaining"] == 500 - usage.total_tokens


@pytest.mark.attack("limits")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 100,
        "\u0e01\u0301" * 20,
        "\U0001f9d1\u200d\U0001f680" * 8,
        "\x00\x7f \n" * 20,
        "<|im_start|>" * 10,
    ],
)
def test_no_text_has_more_tokens_than_were_reserved(deployed: Daemon, text: str) -> None:
    """On a real engine, with its chat template: what was reserved is what is missing from the budget meanwhile."""
    whole = 1_000_000
    with limited(deployed, f"reserve {hash(text)}", tokens_per_day=whole) as client:
        said = [{"role": "user", "content": text}] * 3
        answer = client.chat.completions.with_raw_response.create(
            model="tiny",
            messages=said,
            max_tokens=5,  # type: ignore[arg-type]
        )
        usage = answer.parse().usage
        assert usage is not None
        reserved = whole - int(answer.headers["x-ratelimit-remaining-tokens"])
        assert usage.total_tokens <= reserved


def test_a_custom_command_is_an_engine_too(deployed: Daemon) -> None:
    import sys

    command = f"{sys.executable} -m tests.fakes.engine --port {{port}} --name {{served_name}} --reply Custom."
    body = {
        "name": "mine",
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": command,
        "health_path": "/health",
        "env": {"PYTHONPATH": str(Path(__file__).parents[2])},
    }
    status, answer = deployed.call("POST", "/v1/models", body)
    assert status == 200, answer
    deployed.running("mine")
    said = deployed.call("POST", "/v1/chat/completions", {**ask(), "model": "mine"})[1]
    assert "Custom." in json.dumps(said)


def test_the_log_of_an_engine_is_had_through_the_server(deployed: Daemon) -> None:
    (instance,) = deployed.running("vectors")
    status, text = deployed.call("GET", f"/v1/model-instances/{instance['id']}/logs?tail=500")
    assert status == 200 and text


def test_a_deleted_model_leaves_no_process(deployed: Daemon) -> None:
    (instance,) = deployed.running("vectors")
    (model,) = [m for m in deployed.call("GET", "/v1/models")[1]["items"] if m["name"] == "vectors"]
    assert deployed.call("DELETE", f"/v1/models/{model['id']}")[1] is None
    deployed.until(lambda: not deployed.instances("vectors"), "the end of the instance")
    with pytest.raises(ProcessLookupError):
        os.kill(instance["pid"], 0)


def test_what_an_engine_took_is_measured_and_the_next_replica_of_its_kind_learns_from_it(
    deployed: Daemon,
) -> None:
    def explained(instance: dict[str, Any]) -> list[str]:
        path = f"/v1/model-instances/{instance['id']}/explain"
        return list(deployed.call("GET", path)[1]["memory"])

    (first,) = deployed.running("tiny")
    deployed.until(lambda: deployed.instances("tiny")[0]["memory"], "what the engine took")
    measured = deployed.instances("tiny")[0]["memory"]
    assert measured["terms"]["host cache"] > 0 and measured["terms"]["host compute"] > 0
    assert measured["host"] > 1 << 20
    (model,) = [m for m in deployed.call("GET", "/v1/models")[1]["items"] if m["name"] == "tiny"]
    body = {**model, "replicas": 2}
    assert deployed.call("PUT", f"/v1/models/{model['id']}", body)[0] == 200
    deployed.until(lambda: len(deployed.instances("tiny")) == 2, "another replica")
    deployed.until(
        lambda: all(one["memory_plan"] for one in deployed.instances("tiny")), "a place for the other replica"
    )
    (second,) = [one for one in deployed.instances("tiny") if one["id"] != first["id"]]
    learnt = second["memory_plan"]["learnt"]
    assert learnt["host cache"]["runs"] == learnt["host compute"]["runs"] == 1
    assert any("learnt from 1 run of llama.cpp " in one for one in explained(second))
    assert any("measured" in one for one in explained(first))

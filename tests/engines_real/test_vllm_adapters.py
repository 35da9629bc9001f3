"""vLLM itself behind a daemon: adapters come to a deployment that runs, and leave it, without a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import openai
import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.model import Model
from gpustack.engines.vllm import VllmEngine
from tests.daemon import Daemon, daemon
from tests.models.tiny_folder import make_adapter, make_tiny_folder
from tests.models.tiny_llm import REPLY

from .vllm_cpu import QUICK, STARTS_WITHIN, path_with, vllm_cpu

pytestmark = pytest.mark.engines

LONG = 1900
"""Tokens of an answer that is still under way when its adapter is removed; it is not waited for."""


@attrs.frozen
class Deployment:
    """A running deployment, and what its users see of it."""

    daemon: Daemon
    client: openai.OpenAI
    document: dict[str, Any]
    pid: int

    def name(self, *adapters: tuple[str, Path]) -> None:
        """Have it name other adapters."""
        listed = [{"name": name, "source": "local_path", "local_path": str(path)} for name, path in adapters]
        path = f"/v1/models/{self.document['id']}"
        status, answer = self.daemon.call("PUT", path, {**self.document, "lora_adapters": listed})
        assert status == 200, answer
        assert answer["generation"] == 1

    @property
    def instance(self) -> dict[str, Any]:
        (one,) = self.daemon.instances("base")
        return one

    def until_has(self, *names: str) -> None:
        self.daemon.until(lambda: self.instance["lora_adapters"] == list(names), f"adapters {names}", 120)
        assert (self.instance["pid"], self.instance["state"]) == (self.pid, "running")

    def said(self, model: str, **more: Any) -> Any:
        messages = [{"role": "user", "content": "Who are you?"}]
        return self.client.chat.completions.create(model=model, messages=messages, **more)  # type: ignore[call-overload]

    def text(self, model: str) -> str:
        return str(self.said(model).choices[0].message.content).strip()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("first") / "first")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, first: Path) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("models")
    programs = vllm_cpu()
    with daemon(folder / "data", env=path_with(programs)) as one:
        body = {
            "name": "base",
            "source": "local_path",
            "local_path": str(make_tiny_folder(folder / "tiny")),
            "backend_parameters": ["--kv-cache-memory-bytes", "67108864", *QUICK, "--max-model-len=2048",
                                   "--enable-lora", "--max-lora-rank=16"],
            "lora_adapters": [{"name": "first", "source": "local_path", "local_path": str(first)}],
        }  # fmt: skip
        status, document = one.call("POST", "/v1/models", body)
        assert status == 200, document
        (instance,) = one.running("base", within=STARTS_WITHIN)
        key = one.call("POST", "/v1/api-keys", {"name": "tests"})[1]["value"]
        with openai.OpenAI(base_url=f"{one.url}/v1", api_key=key, max_retries=0, timeout=300) as client:
            yield Deployment(one, client, body | {"id": document["id"]}, instance["pid"])


def test_a_second_adapter_is_added_and_the_first_removed_while_it_runs(
    base: Deployment, first: Path, tmp_path: Path
) -> None:
    second = make_adapter(tmp_path / "second", after=" by")
    assert base.text("base:first") == "by this cluster."
    with pytest.raises(openai.NotFoundError):
        base.text("base:second")
    base.name(("first", first), ("second", second))
    base.until_has("first", "second")
    assert [base.text(model) for model in ("base:second", "base:first", "base")] == [
        "this cluster.",
        "by this cluster.",
        REPLY,
    ]
    base.name(("second", second))
    with pytest.raises(openai.NotFoundError):
        base.text("base:first")
    base.until_has("second")
    assert base.text("base:second") == "this cluster."


def test_an_answer_under_way_outlives_the_removal_of_its_adapter(base: Deployment, first: Path) -> None:
    base.name(("first", first))
    base.until_has("first")
    with base.said("base:first", stream=True, max_tokens=LONG, extra_body={"ignore_eos": True}) as stream:
        chunks = iter(stream)
        next(chunks)
        base.name()
        base.until_has()
        later = [next(chunks) for _ in range(20)]
    assert all(chunk.choices[0].delta.content is not None for chunk in later)


def test_one_that_vllm_refuses_is_explained_in_its_words(
    base: Deployment, first: Path, tmp_path: Path
) -> None:
    large = make_adapter(tmp_path / "large")
    config = json.loads((large / "adapter_config.json").read_text())
    (large / "adapter_config.json").write_text(json.dumps({**config, "r": 64}))
    base.name(("large", large), ("first", first))
    base.until_has("first")
    base.daemon.until(lambda: "large" in base.instance["state_message"], "the reason", 60)
    said = base.instance["state_message"].removeprefix("The adapter large cannot be loaded: ")
    assert "LoRA rank 64 is greater than max_lora_rank 16" in said
    free = Model(name="base", source=ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m"))
    assert VllmEngine().outgrown(free, said), "where the bound is not the user's, it would be started anew"
    with pytest.raises(openai.InternalServerError, match="'large' is not loaded by any replica"):
        base.text("base:large")
    assert base.text("base:first") == "by this cluster."

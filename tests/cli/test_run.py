"""What the options of ``gpustack run`` ask of a new deployment, and what a model that cannot talk answers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gpustack.cli.chat import how_to_call, is_chat_model
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.commands import run
from gpustack.cli.commands.chat import sampling_fields
from gpustack.cli.deployment import refuse_other_fields
from gpustack.cli.failure import UsageError
from gpustack.engines.registry import engines
from gpustack.errors import Conflict


def words(*argv: str) -> CommandLine:
    return read(run.__doc__, "run", [*argv, "model"])


def test_options_become_fields_of_the_deployment() -> None:
    given = words(
        "--replicas=2", "--backend=llama-box", "-p", "ctx-size=4096", "--param=--no-warmup", "-e", "A=b=c",
        "--gpu", "n:cuda:0,n:cuda:1", "--gpu=n:cuda:2", "--selector", "zone=a",
        "--access=public", "--priority=-7", "--preempts",
    )  # fmt: skip
    assert run.deployment_fields(given) == {
        "replicas": 2,
        "backend": "llama-box",
        "backend_parameters": ["--ctx-size=4096", "--no-warmup"],
        "env": {"A": "b=c"},
        "gpu_selector": {"gpu_ids": ["n:cuda:0", "n:cuda:1", "n:cuda:2"]},
        "worker_selector": {"zone": "a"},
        "access_policy": "public",
        "priority": -7,
        "preempts": True,
    }


def test_nothing_is_said_that_was_not_asked_for() -> None:
    assert run.deployment_fields(words()) == {}
    assert run.deployment_fields(words("--cpu")) == {"backend_parameters": ["--gpu-layers=0"]}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--cpu", "--gpu=n:cuda:0"), "--cpu and --gpu exclude each other"),
        (("--env=A",), "--env must be NAME=VALUE, not 'A'"),
        (("--selector==x",), "--selector must be NAME=VALUE"),
        (("--replicas=0",), "--replicas must be a whole number of at least 1, not '0'"),
        (("--replicas=-1",), "--replicas must be a whole number"),
        (("--priority=1001",), "--priority must be a whole number from -1000 to 1000, not '1001'"),
        (("--priority=high",), "--priority must be a whole number from -1000 to 1000, not 'high'"),
        (("--command=x", "--backend=llama-box"), "--command is for --backend=custom, not llama-box"),
        (("--lora=a=./x.gguf", "--lora=a=./y.gguf"), "--lora names an adapter twice"),
        (("--access=everybody",), "--access must be one of public, authed, not 'everybody'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_usage(argv: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as refused:
        run.deployment_fields(words(*argv))
    assert "gpustack run" in refused.value.usage


def test_a_command_is_what_custom_runs() -> None:
    assert run.deployment_fields(words("--command=serve {port}")) == {
        "backend": "custom",
        "command": "serve {port}",
    }


def test_every_engine_that_the_help_offers_is_there() -> None:
    line = next(line for line in (run.__doc__ or "").splitlines() if "--backend=ENGINE" in line)
    offered = {engine.wire_name for engine in engines() if engine.wire_name in line}
    assert offered == {engine.wire_name for engine in engines()}
    assert not {"vllm", "sglang", "vox-box"} & set(line.replace(",", " ").split()) - offered


def test_a_script_does_not_wait_for_ever_and_a_person_may() -> None:
    assert run.wait_limit(words(), attended=True) == math.inf
    assert run.wait_limit(words(), attended=False) == 1800
    for attended in (False, True):
        assert run.wait_limit(words("--timeout=5"), attended=attended) == 5
        assert run.wait_limit(words("--timeout=0"), attended=attended) == math.inf


def test_a_model_that_is_deployed_already_is_taken_as_it_is_asked_for_again() -> None:
    model = {"name": "m", "backend": "llama-box", "backend_parameters": ["--ctx-size=1"], "env": {}}
    refuse_other_fields(model, {"backend": "llama-box", "backend_parameters": ["--ctx-size=1"]})
    with pytest.raises(Conflict, match=r"--param \(or --cpu\) is for a new deployment"):
        refuse_other_fields(model, {"backend_parameters": ["--ctx-size=2"]})


def test_how_freely_and_how_long_it_answers_go_into_the_request() -> None:
    assert sampling_fields(words("--temperature=0.5", "--max-tokens=7")) == {
        "temperature": 0.5,
        "max_tokens": 7,
    }
    assert sampling_fields(words()) == {}
    with pytest.raises(UsageError, match="--temperature must be a number"):
        sampling_fields(words("--temperature=hot"))


@pytest.mark.parametrize(
    ("categories", "talks"),
    [([], True), (["llm"], True), (["unknown"], True), (["embedding"], False), (["reranker"], False)],
)
def test_only_chat_models_are_talked_to(categories: list[str], talks: bool) -> None:
    assert is_chat_model({"categories": categories}) is talks


@pytest.mark.parametrize(
    ("category", "path"),
    [("embedding", "/v1/embeddings"), ("reranker", "/v1/rerank"), ("text_to_speech", "/v1/audio/speech")],
)
def test_for_the_others_it_says_how_to_call_them(category: str, path: str) -> None:
    model: dict[str, Any] = {"name": "vectors", "categories": [category]}
    told = how_to_call(model, "http://127.0.0.1:8080", key=False)
    assert f"curl http://127.0.0.1:8080{path}" in told and '"model": "vectors"' in told
    assert "Authorization" not in told
    assert "Bearer $GPUSTACK_API_KEY" in how_to_call(model, "http://x", key=True)


def test_an_upload_is_shown_with_a_key_for_it_is_refused_without() -> None:
    told = how_to_call({"name": "ear", "categories": ["speech_to_text"]}, "http://x", key=False)
    assert "curl http://x/v1/audio/transcriptions" in told and "-F model=ear -F file=@" in told
    assert "Bearer $GPUSTACK_API_KEY" in told

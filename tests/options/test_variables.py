"""Variables that are no option, in the environment of a daemon and in that of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.daemon import Daemon, daemon
from tests.fakes.hub import Hub
from tests.fakes.modelscope import running_modelscope
from tests.models.hollow import make_hollow
from tests.models.shape import Shape
from tests.options.spelling import SPELLINGS, spelled
from tests.options.stream import endless_model, stream_of

GIB = 1 << 30
REPO_SOURCE = {"source": "model_scope", "model_scope_model_id": "me/m"}
REPO = {"config.json": b"{}", "model.safetensors": b"weights"}


def test_the_gateway_waits_as_long_and_takes_in_as_many_as_told(tmp_path: Path) -> None:
    """By default an engine may be silent for half an hour, and there is no limit."""
    env = {"GPUSTACK_PROXY_TIMEOUT_SECONDS": "1", "GPUSTACK_TCP_CONNECTOR_LIMIT": "1"}
    with daemon(tmp_path / "data", env=env) as one:
        silent = {**endless_model("--latency", "600"), "name": "silent"}
        for model in (endless_model(), silent):
            assert one.call("POST", "/v1/models", model)[0] == 200
        one.running("endless")
        one.running("silent")
        asked = {"model": "silent", "messages": [{"role": "user", "content": "Are you there?"}]}
        with one.until(
            lambda: _stream_unless_full(one), "the one connection, while nothing else has it"
        ) as stream:
            assert stream.readline().startswith(b"data:")
            status, answer = one.call("POST", "/v1/chat/completions", asked)
            assert status == 503
            assert "as many as GPUSTACK_TCP_CONNECTOR_LIMIT allows" in answer["error"]["message"]
        assert one.until(lambda: one.call("POST", "/v1/chat/completions", asked)[0] == 504, "the timeout")


def _stream_unless_full(one: Daemon) -> HTTPResponse | None:
    try:
        return stream_of(one.url)
    except HTTPError as error:
        assert error.code == 503
        return None


def test_the_claims_of_a_model_are_what_is_set_aside_for_it(tmp_path: Path) -> None:
    """Engines of ours are asked nothing of, so that nothing but the claims could say this."""
    card = {"name": "A card", "vendor": "NVIDIA", "index": 0, "memory": {"total": 8 * GIB}}
    arguments, env = spelled("environment", tmp_path, {"resources": {"gpu_devices": [card]}})
    with daemon(tmp_path / "data", *arguments, env=env) as one:
        claims = {"GPUSTACK_MODEL_VRAM_CLAIM": str(3 * GIB), "GPUSTACK_MODEL_RAM_CLAIM": "1000"}
        model = endless_model()
        status, answer = one.call("POST", "/v1/models", {**model, "env": {**model["env"], **claims}})
        assert status == 200, answer
        (instance,) = one.running("endless")
        claim = instance["computed_resource_claim"]
        assert (claim["ram"], claim["vram"]) == (1000, {"0": 3 * GIB})
        assert instance["gpu_indexes"] == [0]
        status, answer = one.call(
            "POST", "/v1/models", {**model, "name": "x", "env": {"GPUSTACK_MODEL_VRAM_CLAIM": "3 GiB"}}
        )
        assert status == 422
        assert "GPUSTACK_MODEL_VRAM_CLAIM" in answer["message"] and "bytes" in answer["message"]


@pytest.mark.parametrize("token", ["MODELSCOPE_API_TOKEN", "MODELSCOPE_SDK_TOKEN"])
def test_the_variables_of_modelscope_say_where_it_is_asked_and_as_whom(tmp_path: Path, token: str) -> None:
    with running_modelscope() as site:
        site.add("me/m", REPO)
        site.private["me/m"] = "a-token-of-modelscope"
        env = {
            "MODELSCOPE_ENDPOINT": site.url,
            "MODELSCOPE_DOMAIN": "127.0.0.1:9",
            token: "a-token-of-modelscope",
        }
        with daemon(tmp_path / "data", env=env) as one:
            ready = fetched(one)
            assert ready["state"] == "ready", ready
            assert [Path(path).name for path in ready["resolved_paths"]] == list(REPO)
    with daemon(tmp_path / "other", env={"MODELSCOPE_DOMAIN": "127.0.0.1:9"}) as one:
        assert "ModelScope (https://127.0.0.1:9)" in fetched(one)["state_message"]


def fetched(one: Daemon, source: Mapping[str, str] = REPO_SOURCE) -> dict[str, Any]:
    """The record of a source's files, once the worker has fetched them or failed to."""
    worker = one.until(lambda: one.call("GET", "/v1/workers")[1]["items"], "the worker")[0]
    wanted = {**source, "worker_id": worker["id"]}
    status, file = one.call("POST", "/v1/model-files", wanted)
    assert status == 200, file

    def ended() -> Any:
        now = one.call("GET", f"/v1/model-files/{file['id']}")[1]
        return None if now["state"] == "downloading" else now

    found: dict[str, Any] = one.until(ended, "the end of the fetch")
    return found


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_evict_unused_files_has_the_worker_look_for_room_by_itself(
    tmp_path: Path, hub: Hub, spelling: str
) -> None:
    """Which files go is seen in tests/worker/test_model_file.py, on a disk that is made small there."""
    huge = tmp_path / "huge.gguf"
    huge.touch()
    os.truncate(huge, 4 << 40)
    hub.add("me/huge", {"huge.gguf": huge})
    arguments, env = spelled(spelling, tmp_path, {"evict_unused_files": True})
    wanted = {"source": "huggingface", "huggingface_repo_id": "me/huge", "huggingface_filename": "huge.gguf"}
    with daemon(tmp_path / "data", *arguments, env={**env, "HF_ENDPOINT": hub.url}) as one:
        said = fetched(one, wanted)["state_message"]
        assert said.endswith("--evict-unused-files removes nothing: there is nothing that nobody uses"), said


TINY = Shape(
    architecture="llama",
    layers=2,
    width=64,
    heads=2,
    kv_heads=2,
    head_size=32,
    feed_forward=128,
    vocabulary=200,
    context=512,
)
"""Its need is claimed by hand."""


def lender(one: Daemon, number: int) -> None:
    """A machine that says of itself that it has a GPU of 14 GiB, and lends it."""
    token = (one.data_dir / "token").read_text().strip()
    join = {"name": f"n{number}", "worker_uuid": f"u{number}", "ip": f"127.0.0.{number + 1}"}
    status, joined = one.call("POST", "/v1/workers", join, {"authorization": f"Bearer {token}"})
    assert status == 200, joined
    card = {"index": 0, "name": "A card", "vendor": "NVIDIA", "type": "cuda", "memory": {"total": 14 * GIB}}
    build = {"engine": "llama.cpp", "version": "1", "origin": "PATH", "path": "/x", "drives": ["cuda"]}
    said = {
        "memory": {"total": 64 * GIB},
        "gpu_devices": [card],
        "engines": [{**build, "rpc": True, "rpc_server": "/y", "digest": "d"}],
    }
    credential = {"authorization": f"Bearer {joined['credential']}"}
    status, answer = one.call("PUT", f"/v1/workers/{joined['id']}/status", {"status": said}, credential)
    assert status == 200, answer


@pytest.mark.parametrize(
    "variable", ["DEFAULT_MAX_RPC_SERVER_COUNT", "DEFAULT_MAX_RPC_COMBINATION_GENERATE_GPU_COUNT"]
)
def test_no_more_devices_of_other_workers_are_used_than_told(tmp_path: Path, variable: str) -> None:
    """What is needed are three cards, then four: one of the worker that leads, and the others of others."""
    make_hollow(tmp_path / "m.gguf", TINY, "f16")
    spec: dict[str, Any] = {
        "source": "local_path",
        "local_path": str(tmp_path / "m.gguf"),
        "cpu_offloading": False,
    }
    with daemon(tmp_path / "data", "--disable-worker", env={variable: "2"}) as one:
        for number in range(1, 6):
            lender(one, number)
        claims = [{"GPUSTACK_MODEL_VRAM_CLAIM": str(gib * GIB)} for gib in (36, 44)]
        asked = {"model_specs": [{**spec, "env": env} for env in claims]}
        status, answer = one.call("POST", "/v1/model-evaluations", asked)
        assert status == 200, answer
        three, four = answer["results"]
        assert three["compatible"] and three["resource_claim"]["vram"] >= 36 * GIB, three
        assert not four["compatible"]
        assert any("over several workers" in text for text in four["scheduling_messages"]), four

"""A llama-server built for CUDA: found, given the card, and within what was set aside for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpustack.domain.unit import MIB
from tests.daemon import Daemon, daemon
from tests.gpu.card import cards
from tests.gpu.conftest import Look
from tests.models import make_hollow

pytestmark = pytest.mark.gpu

SENTENCE = "Hello! I am a tiny model served by this cluster."


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    cards()
    server = shutil.which("llama-server")
    if server is None:
        pytest.skip("this test needs a llama-server on PATH; gpustack download-tools fetches one")
    listed = subprocess.run(
        [server, "--list-devices"], capture_output=True, text=True, timeout=60, check=True
    )
    if "CUDA0" not in listed.stdout + listed.stderr:
        pytest.skip(f"this test needs a llama-server that was built for CUDA, which {server} was not")
    with daemon(tmp_path_factory.mktemp("gpu-llama") / "data", "--llama-server-path", server) as one:
        one.until(lambda: one.call("GET", "/v1/gpu-devices")[1]["items"], "a GPU")
        yield one


def deployed(running: Daemon, name: str, path: Path, *parameters: str) -> dict[str, Any]:
    """The running instance of a deployment."""
    body = {
        "name": name,
        "source": "local_path",
        "local_path": str(path),
        "backend_parameters": [*parameters],
    }
    status, answer = running.call("POST", "/v1/models", body)
    assert status == 200, answer
    (instance,) = running.running(name)
    return instance


def withdrawn(running: Daemon, name: str) -> None:
    (model,) = [one for one in running.call("GET", "/v1/models")[1]["items"] if one["name"] == name]
    running.call("DELETE", f"/v1/models/{model['id']}")
    running.until(lambda: not running.instances(name), f"the end of {name}")


def asked(running: Daemon, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 64}
    status, said = running.call("POST", "/v1/chat/completions", body)
    assert status == 200, said
    return str(said["choices"][0]["message"]["content"])


def test_a_model_answers_from_the_card(running: Daemon, tiny_model: Path) -> None:
    instance = deployed(running, "tiny", tiny_model, "--verbosity", "4")
    assert instance["gpu_indexes"] == [0]
    assert asked(running, "tiny") == SENTENCE
    log = running.call("GET", f"/v1/model-instances/{instance['id']}/logs?tail=1000")[1]
    assert "CUDA0 model buffer size" in str(log)
    withdrawn(running, "tiny")


async def test_an_engine_takes_no_more_of_the_card_than_was_set_aside_for_it(
    running: Daemon, look: Look, tmp_path: Path
) -> None:
    """Beside its buffers it has a context, the code of its kernels and the workspaces of its libraries."""
    make_hollow(tmp_path / "hollow.gguf", "llama-3.2-1b")
    prompt = {"model": "hollow", "prompt": [5] * 1500, "max_tokens": 8}
    before = (await look()).memory.used
    instance = deployed(running, "hollow", tmp_path / "hollow.gguf")
    assert running.call("POST", "/v1/completions", prompt)[0] == 200
    after = (await look()).memory.used
    assert before is not None and after is not None
    claim = instance["computed_resource_claim"]["vram"]["0"]
    withdrawn(running, "hollow")
    assert claim // 2 < after - before <= claim, f"{(after - before) / MIB:.0f} MiB of {claim / MIB:.0f}"

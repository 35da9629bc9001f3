"""Where engines that are Python packages come from: named by path, or installed by the version of a deployment."""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.daemon import Daemon, daemon
from tests.fakes.wheels import make_wheel
from tests.hardware.test_engine_program import python_environment
from tests.options.spelling import shortly, spelled

PIPX = """#!/bin/sh
# What pipx does, as far as it matters here, with a copy of an environment in place of what an index has.
set -e
mkdir -p "$PIPX_HOME/venvs" "$PIPX_BIN_DIR"
echo "$@" >> "$PIPX_HOME/calls"
while [ $# -gt 1 ]; do
  case "$1" in --suffix) suffix=$2; shift;; esac
  shift
done
venv="$PIPX_HOME/venvs/transformers$(echo "$suffix" | tr '_.' '--')"
cp -a "$(dirname "$0")/template" "$venv"
ln -s "$venv/bin/transformers" "$PIPX_BIN_DIR/transformers$suffix"
"""


@attrs.frozen
class World:
    """The daemon, its folders, and a model in the layout of Hugging Face."""

    daemon: Daemon
    folder: Path
    model: Path

    def deployed(self, name: str, **fields: Any) -> dict[str, Any]:
        """An instance of a deployment of transformers, once it runs."""
        body = {
            "name": name,
            "backend": "transformers",
            "source": "local_path",
            "local_path": str(self.model),
            **fields,
        }
        status, answer = self.daemon.call("POST", "/v1/models", body)
        assert status == 200, answer
        (instance,) = self.daemon.running(name, within=180)
        return dict(instance)

    @property
    def calls(self) -> list[str]:
        """The commands that pipx was given."""
        return (self.folder / "data/pipx/calls").read_text().splitlines()


@pytest.fixture(scope="module", params=shortly("flag"))
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp(f"engines-by-{request.param}")
    make_environment(folder / "template", make_wheel(folder, "transformers", "5.1.0", program="transformers"))
    model = folder / "model"
    make_model(model)
    pipx = folder / "a-pipx"
    pipx.write_text(PIPX)
    pipx.chmod(0o755)
    mine = python_environment(folder / "mine", "0.31.0")
    values = {"pipx_path": pipx, "engine_path": [f"vllm={mine.parent.parent}"], "bin_dir": folder / "bin"}
    arguments, env = spelled(request.param, folder, values)
    with daemon(folder / "data", *arguments, env=env) as one:
        yield World(one, folder, model)


def make_environment(folder: Path, wheel: Path) -> None:
    """An environment with a wheel whose console script has the name of its package, as pip leaves one."""
    site = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    name = wheel.name.partition("-")[0]
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(Path(sys.base_prefix) / "bin/python3")
    program = folder / "bin" / name
    program.write_text(f"#!{folder}/bin/python\nfrom {name} import main\nmain()\n")
    program.chmod(0o755)


def make_model(folder: Path) -> None:
    folder.mkdir()
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "intermediate_size": 16, **shape}
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    header = {"model.embed_tokens.weight": {"dtype": "F32", "shape": [16, 8], "data_offsets": [0, 512]}}
    told = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(told)) + told + bytes(512))


def engines(one: Daemon) -> list[dict[str, Any]]:
    workers = one.call("GET", "/v1/workers")[1]["items"]
    return list(workers[0]["status"]["engines"]) if workers else []


def test_engine_path_says_where_an_engine_is(world: World) -> None:
    def vllm() -> Any:
        return next((one for one in engines(world.daemon) if one["engine"] == "vllm"), None)

    found = world.daemon.until(vllm, "the builds")
    assert (found["version"], found["path"]) == ("0.31.0", f"{world.folder}/mine/bin/vllm")


def test_pipx_path_installs_the_version_that_a_deployment_names(world: World) -> None:
    """Its program is ``<bin-dir>/<program>_<version>``, and what is told while it is installed names the version."""
    instance = world.deployed("pinned", backend_version="v5.1.0")
    assert world.calls[0] == (
        f"install --force --python {sys.executable} --suffix _5.1.0 --pip-args torch accelerate "
        "python-multipart soundfile soxr librosa transformers[serving]==5.1.0"
    )
    answer = world.daemon.call("GET", f"/v1/model-instances/{instance['id']}")[1]
    assert answer["state"] == "running"
    assert (world.folder / "bin/transformers_5.1.0").exists()
    assert "engine=transformers-serve version=5.1.0 with=pipx" in world.daemon.log

    def made() -> list[Any]:
        return [one for one in engines(world.daemon) if one.get("presence") == "isolated"]

    (build,) = world.daemon.until(made, "the environment in the worker's status", within=60)
    assert (build["version"], build["disk"] > 0) == ("5.1.0", True)


def test_backend_deps_are_installed_beside_the_engine_in_place_of_the_pins(world: World) -> None:
    deps = {"GPUSTACK_BACKEND_DEPS": "extra==1.0, torch"}
    world.deployed("with-extra", backend_version="5.2.0", env=deps)
    assert world.calls[-1].endswith("--pip-args extra==1.0 torch transformers[serving]==5.2.0")
    venvs = world.folder / "data/pipx/venvs"
    assert [path.name for path in venvs.iterdir() if path.name.startswith("transformers-5-2-0-")]

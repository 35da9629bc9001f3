"""The command line of every engine, as recorded in golden/; write a missing one by hand and read it twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gpustack.domain.instance import Claim
from gpustack.domain.unit import GIB
from gpustack.engines.engine import LaunchContext, LaunchSpec
from gpustack.engines.registry import engine_for

from .worlds import SERVER, context, model

GOLDEN = Path(__file__).parent / "golden"
FULL = Claim(ram=GIB, vram={1: 6 * GIB}, offload_layers=33, total_layers=33, slots=4)
SPLIT = Claim(
    ram=GIB,
    vram={0: 4 * GIB, 2: 4 * GIB},
    offload_layers=81,
    total_layers=81,
    tensor_split=(41, 40),
    slots=2,
)

CASES: dict[str, LaunchContext] = {
    "llama_cpp_embedded_on_cpu": context(model(), cpu_count=8),
    "llama_cpp_server_on_one_gpu": context(model(), build=SERVER, gpus=(1,), claim=FULL, device_type="cuda"),
    "llama_cpp_server_on_two_gpus": context(
        model(), build=SERVER, gpus=(0, 2), claim=SPLIT, device_type="rocm"
    ),
    "llama_cpp_server_of_unknown_need": context(model(), build=SERVER, gpus=(0,), device_type="cuda"),
    "llama_cpp_embedding": context(model(categories=("embedding",)), cpu_count=2),
    "llama_cpp_reranker": context(model(categories=("reranker",))),
    "llama_cpp_with_projector_and_parameters": context(
        model(
            backend_parameters=("--ctx-size=4096", "--mmproj mmproj.gguf", "--lora", "{data_dir}/a.gguf"),
            env={"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "3"},
        ),
        mmproj_path="/models/mmproj.gguf",
    ),
    "custom": context(
        model(
            name="it's mine",
            command="serve --name {served_name} --bind {host}:{port} '{model_path}' --json '{\"a\": 1}'",
            health_path="/up",
            env={"PORT": "{port}"},
            backend_parameters=("--extra=1",),
        )
    ),
}


def shown(launch: LaunchSpec) -> str:
    health = launch.health
    lines = [*(f"env {name}={value}" for name, value in launch.env.items())]
    lines += [f"arg {word.replace(sys.executable, '<python>')}" for word in launch.argv]
    lines += [f"ready {health.readiness.path}", f"alive {health.liveness.path}"]
    lines += [f"start within {health.start_deadline:.0f} s, stop within {health.stop_grace:.0f} s"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_the_command_line_is_the_recorded_one(name: str) -> None:
    case = CASES[name]
    assert shown(engine_for(case.model).launch(case)) == (GOLDEN / f"{name}.txt").read_text()


def test_every_recorded_command_line_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)

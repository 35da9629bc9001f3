"""GPUs that are selected by hand: of a type, a system and a number of workers that the engine can use."""

from __future__ import annotations

import pytest

from gpustack.domain.device import DeviceId
from gpustack.engines.registry import engine_for
from gpustack.engines.selection import selection_faults

from .worlds import model


def faults(backend: str, *ids: str, **systems: str) -> list[str]:
    deployed = model(backend=backend, command="x {port}")
    selected = [DeviceId.parse(text) for text in ids]
    return selection_faults(engine_for(deployed), deployed, selected, systems)


@pytest.mark.parametrize(
    ("backend", "gpu", "sentence"),
    [
        ("ascend-mindie", "a:cuda:0", "Backend ascend-mindie needs GPUs of type npu, and cuda is selected"),
        ("vox-box", "a:rocm:0", "Backend vox-box needs GPUs of type cuda, and rocm is selected"),
        ("tei", "a:npu:0", "Backend tei needs GPUs of type cuda, and npu is selected"),
        ("vllm", "a:mps:0", "Backend vllm does not run on such GPUs, and mps is selected"),
        ("sglang", "a:mps:0", "Backend sglang does not run on such GPUs, and mps is selected"),
    ],
)
def test_a_type_of_gpu_that_the_engine_does_not_drive_is_refused(
    backend: str, gpu: str, sentence: str
) -> None:
    assert faults(backend, gpu) == [sentence]


@pytest.mark.parametrize(
    ("backend", "gpu"),
    [
        ("ascend-mindie", "a:npu:0"),
        ("vox-box", "a:cuda:0"),
        ("vllm", "a:rocm:0"),
        ("vllm", "a:npu:0"),
        ("llama-box", "a:mps:0"),
        ("custom", "a:mlu:0"),
    ],
)
def test_one_that_some_build_drives_is_not(backend: str, gpu: str) -> None:
    assert faults(backend, gpu, a="linux") == []


def test_vllm_is_for_linux() -> None:
    assert faults("vllm", "a:cuda:0", a="windows") == [
        "Backend vllm runs on linux, and worker 'a' has windows"
    ]
    assert faults("vllm", "a:cuda:0", a="Linux") == [] == faults("llama-box", "a:cuda:0", a="windows")


def test_several_workers_are_for_engines_that_run_on_several() -> None:
    assert faults("vllm", "a:cuda:0", "b:cuda:0") == [] == faults("llama-box", "a:cuda:0", "b:cuda:0")
    assert faults("tei", "a:cuda:0", "b:cuda:0") == [
        "Backend tei runs on one worker, and GPUs of several are selected (a, b)"
    ]

"""The speech engine: which deployments are its, what it refuses, and that its flags are those of its program."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.model import Category, GpuSelector, Model
from gpustack.domain.unit import GIB, MIB
from gpustack.engines.registry import engine_for
from gpustack.engines.vox_box import ENGINE, FLAGS
from gpustack.policy.estimate.demand import demand_of
from tests.child import ROOT, environment

from .worlds import model


def speech(path: str = "/models/whisper", **fields: Any) -> Model:
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=path)
    return model(**{"source": source, "backend": "vox-box", **fields})


def test_its_flags_are_those_of_its_program() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "gpustack.launchers.audio", "--help"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    flags = {word.strip("[],") for word in told.split() if word.startswith(("--", "[--"))}
    assert flags - {"--help"} == {*FLAGS.known, *FLAGS.ours}


@pytest.mark.parametrize(
    ("path", "facts", "fields"),
    [
        ("/models/faster-whisper-small", None, {}),
        ("/models/Piper/en_US-amy-medium", None, {}),
        ("/espeak-ng", None, {}),
        ("/models/a", ModelFacts(), {"categories": ("speech_to_text",)}),
        ("/models/a", ModelFacts(category=Category.TEXT_TO_SPEECH), {}),
    ],
)
def test_speech_in_a_layout_of_its_own_needs_no_backend(
    path: str, facts: ModelFacts | None, fields: dict[str, Any]
) -> None:
    assert engine_for(speech(path, backend=None, **fields), facts) is ENGINE


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("/models/a", None),
        ("/models/kokoro.gguf", None),
        ("/models/a", ModelFacts(format=FileFormat.SAFETENSORS, category=Category.SPEECH_TO_TEXT)),
        ("/models/a", ModelFacts()),
    ],
)
def test_what_others_load_is_not_its_own(path: str, facts: ModelFacts | None) -> None:
    assert not ENGINE.serves(speech(path, backend=None), facts)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"backend_parameters": ("--port=1",)}, "--port cannot be set: the worker chooses where it listens"),
        ({"backend_parameters": ("--device cpu",)}, "use gpu_selector"),
        ({"backend_parameters": ("--beam-sise=5",)}, "did you mean --beam-size?"),
        (
            {"backend_parameters": ("--parallel", "0")},
            "--parallel needs a whole number of at least 1, not '0'",
        ),
        ({"backend_parameters": ("--parallel",)}, "--parallel needs a whole number"),
        (
            {"backend_parameters": ("--compute-type=int3",)},
            "--compute-type must be one of default, auto, int8",
        ),
        ({"backend_parameters": ("--voice",)}, "--voice needs a value"),
        ({"backend_parameters": ("--no-vad=1",)}, "--no-vad takes no value"),
        ({"backend_parameters": ("loudly",)}, "'loudly' follows no flag"),
        ({"distributed_inference_across_workers": True}, "vox-box runs on one worker"),
        ({"gpu_selector": GpuSelector(gpu_ids=("a:cuda:0", "a:cuda:1"))}, "vox-box runs on one GPU"),
        ({"path": "/models/whisper.gguf"}, "vox-box reads no GGUF files"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    (fault,) = ENGINE.faults(speech(**fields))
    assert sentence in fault


def test_a_sound_deployment_has_no_faults() -> None:
    given = ("--compute-type=int8", "--no-vad", "--parallel 4", "--voice", "de")
    assert ENGINE.faults(speech(backend_parameters=given)) == []


@pytest.mark.parametrize(
    ("size", "vram", "ram"),
    [
        (75 * MIB, 1 * GIB, 1.5 * GIB),
        (145 * MIB, 1 * GIB, 1.5 * GIB),
        (484 * MIB, 2 * GIB, 3 * GIB),
        (1530 * MIB, 5 * GIB, 7.5 * GIB),
        (int(1.6 * GIB), 6 * GIB, 9 * GIB),
        (3 * GIB, 10 * GIB, 15 * GIB),
    ],
)
def test_whisper_takes_memory_by_its_size(size: int, vram: int, ram: float) -> None:
    """The table of the existing product."""
    demand = demand_of(speech(), ModelFacts(file_size=size, category=Category.SPEECH_TO_TEXT), "vox-box")
    need = demand.devices((1.0,))
    assert (need.vram, need.ram, demand.cpu()) == ((vram,), 0, ram)
    assert demand.on_cpu
    assert demand.device_counts == (1,)


def test_a_larger_whisper_than_any_known_takes_more() -> None:
    known, larger = (
        demand_of(speech(), ModelFacts(file_size=size), "vox-box") for size in (3 * GIB, 4 * GIB)
    )
    assert larger.cpu() > known.cpu()
    assert larger.devices((1.0,)).vram > known.devices((1.0,)).vram


def test_voices_take_no_device() -> None:
    for demand in (
        demand_of(speech("/espeak-ng"), None, "vox-box"),
        demand_of(speech(categories=("text_to_speech",)), ModelFacts(file_size=60 * MIB), "vox-box"),
    ):
        assert not demand.on_devices
        assert 0 < demand.cpu() < GIB

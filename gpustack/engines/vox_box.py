"""Speech, on the wire ``vox-box``: Whisper writes down what is spoken, Piper, Kokoro and espeak-ng speak.

The program is ours (``gpustack/launchers/audio``), over faster-whisper and the libraries of the voices.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import PurePosixPath

import attrs

from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.model import Category, Model
from gpustack.domain.unit import MIB
from gpustack.nursery.process import module_command

from . import parameters
from .engine import Engine, GangPlan, HealthPolicy, LaunchContext, LaunchSpec, Probe
from .memory import SafetensorsMemory
from .visibility import device_environment

LAUNCHER = "gpustack.launchers.audio"
KEY_VARIABLE = "GPUSTACK_ENGINE_API_KEY"
ESPEAK = "espeak-ng"
"""The last part of a local path that stands for the voices of espeak-ng, which have no files."""
DRAIN_SECONDS = 10.0
START_SECONDS = 300.0
LOAD_BYTES_PER_SECOND = 50 * MIB

WHOLE_FLAGS = ("--parallel", "--max-waiting", "--max-audio-seconds", "--max-input-chars", "--beam-size")
TEXT_FLAGS = ("--compute-type", "--voice")
SWITCHES = ("--no-vad",)
"""The flags that a user may set, by the kind of their values; they are those of ``launchers/audio/options.py``."""
COMPUTE_TYPES = (
    "default", "auto", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16",
    "float32",
)  # fmt: skip
"""Those of CTranslate2."""
OURS = {
    **dict.fromkeys(("--host", "--port"), "the worker chooses where it listens"),
    "--model": "the model's source says where it is",
    "--served-model-name": "the deployment's name is what it is called",
    "--device": "the scheduler chooses the device; to pick one use gpu_selector",
    "--data-dir": "nothing is kept there",
    "--cpu-threads": "the worker says how many cores it has",
    "--drain-seconds": "the worker says how long it waits",
}
"""Flags a user may not set, and why."""

_AUDIO = frozenset({Category.SPEECH_TO_TEXT, Category.TEXT_TO_SPEECH})
_HINTS = ("faster-whisper", "faster_whisper", "piper", "kokoro")
"""Parts of names by which a source alone tells that it is for this engine."""
_LAYERED = 64


@attrs.frozen
class VoxBoxEngine:
    """Transcriptions, translations and speech; on one CUDA device, or on the CPU."""

    name: str = "vox-box"
    wire_name: str = "vox-box"
    any_device: bool = False
    memory: SafetensorsMemory | None = None
    metrics: Mapping[str, str] = attrs.field(
        factory=lambda: {
            "voxbox:requests_running": "gpustack:num_requests_running",
            "voxbox:requests_waiting": "gpustack:num_requests_waiting",
        },
        repr=False,
    )

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        """Speech in a layout of its own: neither GGUF nor safetensors, which other engines load."""
        if speaks_without_files(model):
            return True
        if facts is None:
            return _is_hinted(model)
        audio = facts.category in _AUDIO or not _AUDIO.isdisjoint(model.categories)
        return facts.format is FileFormat.UNKNOWN and (audio or _is_hinted(model))

    def fetches(self, model: Model) -> bool:
        """All but the voices of espeak-ng."""
        return not speaks_without_files(model)

    def faults(self, model: Model) -> list[str]:
        faults = (
            []
            if not model.source.names_gguf
            else ["vox-box reads no GGUF files; for those set backend llama-box"]
        )
        if model.distributed_inference_across_workers:
            faults.append("vox-box runs on one worker: distributed_inference_across_workers must not be set")
        if model.gpu_selector is not None and len(model.gpu_selector.gpu_ids) > 1:
            faults.append("vox-box runs on one GPU: pick one at most")
        return [*faults, *_parameter_faults(model)]

    def context(self, model: Model) -> int | None:
        return None

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        return None

    def launch(self, context: LaunchContext) -> LaunchSpec:
        model, indexes = context.model, context.gpu_indexes
        size = context.placement.claim.ram + sum(context.placement.claim.vram.values())
        device = f"cuda:{indexes[0]}" if indexes else "cpu"
        given = parameters.expanded(model.backend_parameters, data_dir=context.data_dir)
        return LaunchSpec(
            argv=(
                *module_command(LAUNCHER),
                *("--model", context.model_path or ESPEAK),
                *("--served-model-name", model.name),
                *("--host", context.host, "--port", str(context.port)),
                *("--device", device),
                *_threads(context.cpu_count),
                *("--drain-seconds", f"{DRAIN_SECONDS:g}"),
                *parameters.tokens(given),
            ),
            env={
                **_device_environment(indexes),
                **model.env,
                **({} if context.api_key is None else {KEY_VARIABLE: context.api_key}),
            },
            health=HealthPolicy(
                readiness=Probe(path="/health", period=0.5, timeout=2.0),
                liveness=Probe(path="/health", period=5.0, timeout=5.0, failures=6),
                start_deadline=START_SECONDS + size / LOAD_BYTES_PER_SECOND,
                stop_grace=DRAIN_SECONDS + 5.0,
            ),
        )


def speaks_without_files(model: Model) -> bool:
    """Whether it stands for the voices of espeak-ng."""
    return PurePosixPath(model.source.local_path or "").name == ESPEAK


def _is_hinted(model: Model) -> bool:
    names = f"{model.source.repo}/{model.source.file_pattern or ''}".lower()
    return any(hint in names for hint in _HINTS) and not model.source.names_gguf


def _device_environment(indexes: tuple[int, ...]) -> dict[str, str]:
    """All devices are seen, and ``--device`` names one, by the driver's order; without any none is seen."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if indexes else device_environment(None, ())


def _threads(cpu_count: float | None) -> tuple[str, ...]:
    if cpu_count is None:
        return ()
    return ("--cpu-threads", str(min(max(1, math.floor(cpu_count)), _LAYERED)))


def _parameter_faults(model: Model) -> list[str]:
    faults = []
    for given in parameters.read(model.backend_parameters):
        if not given.flag:
            faults.append(f"backend_parameters: {given.value!r} follows no flag")
        elif given.flag in OURS:
            faults.append(f"{given.flag} cannot be set: {OURS[given.flag]}")
        elif given.flag in WHOLE_FLAGS and not _is_positive(given.value):
            faults.append(f"{given.flag} needs a whole number of at least 1, not {given.value!r}")
        elif given.flag in TEXT_FLAGS and given.value is None:
            faults.append(f"{given.flag} needs a value")
        elif given.flag == "--compute-type" and given.value not in COMPUTE_TYPES:
            faults.append(f"--compute-type must be one of {', '.join(COMPUTE_TYPES)}, not {given.value!r}")
        elif given.flag in SWITCHES and given.value is not None:
            faults.append(f"{given.flag} takes no value")
        elif given.flag not in (*WHOLE_FLAGS, *TEXT_FLAGS, *SWITCHES):
            faults.append(f"vox-box has no parameter {given.flag}{_suggestion(given.flag)}")
    return faults


def _is_positive(text: str | None) -> bool:
    return text is not None and text.isascii() and text.isdigit() and int(text[:10]) > 0 and len(text) <= 9


def _suggestion(flag: str) -> str:
    near = difflib.get_close_matches(flag, (*WHOLE_FLAGS, *TEXT_FLAGS, *SWITCHES), n=1)
    return f"; did you mean {near[0]}?" if near else ""


ENGINE: Engine = VoxBoxEngine()

"""Speech, on the wire ``vox-box``: Whisper writes down what is spoken, Piper, Kokoro and espeak-ng speak.

The program is ours (``gpustack/launchers/audio``), over faster-whisper and the libraries of the voices.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

import attrs

from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.model import Category, Model

from .engine import Engine, GangPlan, LaunchContext, LaunchSpec
from .launcher import OURS, LauncherFlags, launch, one_place_faults
from .memory import SafetensorsMemory

LAUNCHER = "gpustack.launchers.audio"
ESPEAK = "espeak-ng"
"""The last part of a local path that stands for the voices of espeak-ng, which have no files."""
_COMPUTE_TYPES = (
    "default", "auto", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16",
    "float32",
)  # fmt: skip
"""Those of CTranslate2."""
FLAGS = LauncherFlags(
    engine="vox-box",
    wholes=("--parallel", "--max-waiting", "--max-audio-seconds", "--max-input-chars", "--beam-size"),
    texts=("--voice",),
    choices={"--compute-type": _COMPUTE_TYPES},
    switches=("--no-vad",),
    ours={**OURS, "--data-dir": "nothing is kept there"},
)
_AUDIO = frozenset({Category.SPEECH_TO_TEXT, Category.TEXT_TO_SPEECH})
_HINTS = ("faster-whisper", "faster_whisper", "piper", "kokoro")
"""Parts of names by which a source alone tells that it is for this engine."""


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
        return [*one_place_faults(model, self.name), *FLAGS.faults(model)]

    def context(self, model: Model) -> int | None:
        return None

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        return None

    def launch(self, context: LaunchContext) -> LaunchSpec:
        return launch(LAUNCHER, context.model_path or ESPEAK, context)


def speaks_without_files(model: Model) -> bool:
    """Whether it stands for the voices of espeak-ng."""
    return PurePosixPath(model.source.local_path or "").name == ESPEAK


def _is_hinted(model: Model) -> bool:
    names = f"{model.source.repo}/{model.source.file_pattern or ''}".lower()
    return any(hint in names for hint in _HINTS) and not model.source.names_gguf


ENGINE: Engine = VoxBoxEngine()

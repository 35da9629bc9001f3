"""Which kind of speech model a folder holds."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

ESPEAK = "espeak-ng"


class SpeechKind(StrEnum):
    """What a model is, and so what serves it."""

    WHISPER = "whisper"
    PIPER = "piper"
    KOKORO = "kokoro"
    ESPEAK = ESPEAK


class UnknownSpeechModel(Exception):
    """There is no model, or none that is known here; ``str()`` says what was looked for."""


def kind_of(model: str) -> SpeechKind:
    """The kind of the model at a path, or of the name ``espeak-ng``. Raises ``UnknownSpeechModel``."""
    if Path(model).name == ESPEAK and not Path(model).is_dir():
        return SpeechKind.ESPEAK
    folder = folder_of(model)
    if not folder.is_dir():
        raise UnknownSpeechModel(f"There is no folder {model}")
    if (folder / "model.bin").is_file() and (folder / "config.json").is_file():
        return SpeechKind.WHISPER
    if kokoro_files(folder) is not None:
        return SpeechKind.KOKORO
    if piper_voices(folder):
        return SpeechKind.PIPER
    if _is_transformers_whisper(folder):
        raise UnknownSpeechModel(
            f"{folder} holds Whisper in the layout of transformers, and faster-whisper reads that of CTranslate2: "
            "take a repository such as Systran/faster-whisper-small, or deploy this one with backend vllm"
        )
    raise UnknownSpeechModel(
        f"{folder} holds no speech model that is known here: Whisper for CTranslate2 (model.bin, config.json), "
        "Piper (NAME.onnx, NAME.onnx.json) or Kokoro (kokoro*.onnx, voices*.bin)"
    )


def folder_of(model: str) -> Path:
    """The folder of a model that is named by it, or by a file in it."""
    return Path(model).parent if Path(model).is_file() else Path(model)


def piper_voices(folder: Path) -> dict[str, Path]:
    """Voice by name → its network: each ``NAME.onnx`` that has a ``NAME.onnx.json`` beside it."""
    found = sorted(path for path in folder.rglob("*.onnx") if path.with_name(path.name + ".json").is_file())
    return {path.name.removesuffix(".onnx"): path for path in found}


def kokoro_files(folder: Path) -> tuple[Path, Path] | None:
    """The network and the file of voices of a Kokoro model."""
    networks, voices = sorted(folder.glob("kokoro*.onnx")), sorted(folder.glob("voices*.bin"))
    return (networks[0], voices[0]) if networks and voices else None


def _is_transformers_whisper(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_bytes()[: 1 << 20])
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "whisper"

"""The engines that are programs of our own: whether the libraries of their extras are installed beside us."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Awaitable, Callable, Mapping

import attrs

from gpustack.domain.worker import BuildPresence, EngineBuild
from gpustack.hardware.engine_program import BuildError

Ask = Callable[[str], Awaitable[str]]
"""Runs a question in our Python, and returns what it printed."""

_SPEECH_QUESTION = """
import ctypes, json, sys
import ctranslate2
count = ctranslate2.get_cuda_device_count()
if count:
    ctypes.CDLL("libcublas.so.12")
json.dump({"cuda": count > 0}, sys.stdout)
"""

_IMAGES_QUESTION = """
import json, sys
import torch
json.dump({"cuda": torch.version.cuda is not None and torch.cuda.is_available()}, sys.stdout)
"""


@attrs.frozen(kw_only=True)
class LauncherPart:
    """A library of a program: its module, the name of its distribution, and what it is for, in words."""

    module: str
    distribution: str
    purpose: str


@attrs.frozen(kw_only=True)
class LauncherProgram:
    """A program of our own: it runs where one of its ``parts`` is installed; the first that is gives the version.

    ``question`` prints ``{"cuda": true}`` where the part that it is for, the first, drives CUDA devices.
    """

    engine: str
    extra: str
    parts: tuple[LauncherPart, ...]
    question: str

    @property
    def installed(self) -> tuple[LauncherPart, ...]:
        return tuple(part for part in self.parts if importlib.util.find_spec(part.module) is not None)

    @property
    def origin(self) -> str:
        """The libraries that are installed, with their versions."""
        return ", ".join(f"{part.distribution} {_version(part)}".strip() for part in self.installed)


SPEECH = LauncherProgram(
    engine="vox-box",
    extra="audio",
    parts=(
        LauncherPart(module="faster_whisper", distribution="faster-whisper", purpose="transcriptions"),
        LauncherPart(module="piper", distribution="piper-tts", purpose="voices of Piper"),
        LauncherPart(module="kokoro_onnx", distribution="kokoro-onnx", purpose="voices of Kokoro"),
        LauncherPart(module="espeakng_loader", distribution="espeakng-loader", purpose="voices of espeak-ng"),
    ),
    question=_SPEECH_QUESTION,
)
IMAGES = LauncherProgram(
    engine="diffusers",
    extra="images",
    parts=(LauncherPart(module="diffusers", distribution="diffusers", purpose="images"),),
    question=_IMAGES_QUESTION,
)
LAUNCHER_PROGRAMS: tuple[LauncherProgram, ...] = (SPEECH, IMAGES)


def library_file(program: LauncherProgram) -> str | None:
    """The file by whose change it is seen that another version was installed; ``None`` where nothing is installed."""
    for part in program.installed:
        spec = importlib.util.find_spec(part.module)
        if spec is not None and spec.origin is not None:
            return spec.origin
    return None


async def ask_launcher(program: LauncherProgram, ask: Ask) -> EngineBuild:
    """The build of the program. Never raises: where the devices cannot be asked for, its ``advice`` says why."""
    parts = program.installed
    build = EngineBuild(engine=program.engine, version=_version(parts[0]) or None, origin=program.origin)
    if parts[0] != program.parts[0]:
        missing = program.parts[0]
        return attrs.evolve(
            build, advice=f"For {missing.purpose} install GPUStack's extra [{program.extra}] on this worker"
        )
    try:
        told: Mapping[str, bool] = json.loads((await ask(program.question)).splitlines()[-1])
        return attrs.evolve(build, drives=("cuda",) if told["cuda"] else ())
    except BuildError as fault:
        return attrs.evolve(build, advice=f"No GPU is used: {fault}")
    except (ValueError, TypeError, KeyError, IndexError):
        return attrs.evolve(build, advice="No GPU is used: the libraries do not say what they drive")


def missing_launcher(program: LauncherProgram) -> EngineBuild:
    """Nothing of it is installed."""
    return EngineBuild(
        engine=program.engine,
        presence=BuildPresence.MISSING,
        advice=f"install GPUStack's extra [{program.extra}] on this worker, and restart it",
    )


def _version(part: LauncherPart) -> str:
    try:
        return importlib.metadata.version(part.distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""

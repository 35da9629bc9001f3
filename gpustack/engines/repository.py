"""What engines that load a repository of safetensors have in common: sources, and the parameters of the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from gpustack.domain.artifact import SourceKind
from gpustack.domain.model import Category, Model

from . import parameters
from .engine import LaunchContext

OFFLINE: Mapping[str, str] = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
"""The files are here, and nothing may begin to load in the middle of a request."""
LISTENS = "the worker chooses where it listens"
PLACES = "the scheduler decides about workers and devices"
NAMED = "the deployment's name is what it is called"
FILES = "the model's source says which files it is"
SECRET = "clients prove themselves to the gateway"


def source_faults(model: Model, backend: str) -> list[str]:
    """What of the deployment no engine can serve that loads a repository of safetensors."""
    faults = []
    if model.source.kind is SourceKind.OLLAMA or model.source.names_gguf:
        faults.append(
            f"Backend {backend} runs safetensors, and {model.source.readable} is GGUF: set backend to llama-box, "
            "or none"
        )
    if model.cpu_offloading:
        faults.append(f"CPU offloading is not available with backend {backend}")
    return faults


def category_faults(model: Model, backend: str, served: Sequence[Category]) -> list[str]:
    """Whether a category of the deployment is one that the engine does not serve."""
    known = {category.value for category in served} | {Category.UNKNOWN.value}
    wrong = [name for name in model.categories if name not in known]
    if not wrong:
        return []
    return [f"Backend {backend} does not serve models of category {' or '.join(wrong)}"]


def parameter_faults(model: Model, ours: Mapping[str, str]) -> list[str]:
    """A sentence for each parameter that the user may not set; ``ours`` says of each why.

    The beginning of such a name is refused too: ``argparse`` takes it for the name.
    """
    given = dict.fromkeys(parameter.flag for parameter in parameters.read(model.backend_parameters))
    return [
        f"Backend parameter {flag} cannot be set: {why}"
        for flag in given
        if (why := ours.get(flag) or _meant(flag, ours)) is not None
    ]


def _meant(flag: str, ours: Mapping[str, str]) -> str | None:
    if not flag.startswith("--") or len(flag) <= len("--"):
        return None
    return next(
        (f"it may be read as {name}; {why}" for name, why in ours.items() if name.startswith(flag)), None
    )


def number_faults(model: Model, *flags: str) -> list[str]:
    """A sentence for each of these flags that has no whole number of at least 1 behind it."""
    return [
        f"Backend parameter {one.flag} must be a whole number of at least 1, not {one.value!r}"
        for one in parameters.read(model.backend_parameters)
        if one.flag in flags and not is_count(one.value)
    ]


def is_count(text: str | None) -> bool:
    """Whether a text is a whole number from 1 that an engine can mean."""
    return text is not None and text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0


def python_of(context: LaunchContext) -> str:
    """The Python of the environment in which the build's console script lies; on PATH where that is not known."""
    path = context.build.path
    return "python3" if path is None else str(PurePosixPath(path).with_name("python"))


def shapes_of(context: LaunchContext) -> tuple[int, int]:
    """How many devices each worker gives (on a CPU one), and how many members there are. Gangs have equal shares."""
    return len(context.gpu_indexes) or 1, 1 + len(context.placement.subordinates)

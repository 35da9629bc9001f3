"""All engines (every module of this folder that has an ``ENGINE``), and which of them runs a model."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache

from gpustack.domain.backend import BackendSpec
from gpustack.domain.facts import FileFormat, ModelFacts, format_at
from gpustack.domain.model import Model
from gpustack.errors import Invalid
from gpustack.plugins import siblings

from .adapter import selection_of
from .custom import CustomEngine
from .engine import Engine


@cache
def engines() -> tuple[Engine, ...]:
    """All engines, in the order in which they are asked whether they run a model: by module name."""
    return tuple(module.ENGINE for module in siblings(__package__) if hasattr(module, "ENGINE"))


@lru_cache(maxsize=256)  # decisions ask again and again
def engine_by_name(name: str) -> Engine | None:
    """The engine with that name, inside or in the API, in any spelling ("vLLM", "llama_cpp", "VoxBox")."""
    wanted = folded(name)
    return next((e for e in engines() if wanted in (folded(e.name), folded(e.wire_name))), None)


def unknown_backend(name: str, added: Iterable[str] = ()) -> Invalid:
    """The fault of naming a backend that there is not; ``added`` are those that administrators added."""
    built_in, others = ", ".join(sorted(e.wire_name for e in engines())), ", ".join(sorted(added))
    and_added = f", and administrators added {others}" if others else ""
    return Invalid(
        f"Backend {name!r} is not known here; this version has {built_in}{and_added} (custom runs your command)"
    )


def folded(name: str) -> str:
    """A name without what its spellings differ in: letter case, blanks and punctuation."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def engine_for(model: Model, facts: ModelFacts | None = None) -> Engine:
    """The engine that runs ``model``: the backend it names, else the first that serves it.

    A backend of an administrator runs as the custom engine, under its own name. Raises ``Invalid`` with a sentence when
    there is none.
    """
    if model.backend_spec is not None:
        return described_engine(model.backend_spec)
    if model.backend:
        named = engine_by_name(model.backend)
        if named is None:
            raise unknown_backend(model.backend)
        return named
    for engine in engines():
        if engine.serves(model, facts):
            return engine
    raise Invalid(_nobody(model, facts))


def engine_at(model: Model, path: str | None) -> Engine | None:
    """The engine that runs ``model``, whose files a worker has at ``path``; ``None`` while nothing tells which."""
    try:
        return engine_for(model, ModelFacts(format=format_at(path)))
    except Invalid:
        return None


def described_engine(spec: BackendSpec) -> Engine:
    """The custom engine under the name of an administrators' backend, with its metrics."""
    return CustomEngine(wire_name=spec.backend, metrics=spec.metrics)


def _nobody(model: Model, facts: ModelFacts | None) -> str:
    what = model.source.readable
    if facts is not None and facts.format is FileFormat.SAFETENSORS:
        return (
            f"No engine here runs safetensors models such as {what}; choose GGUF files of it (often in a repository of "
            "their own, with GGUF in its name), or set backend to 'custom' with a command"
        )
    return f"Cannot tell which engine runs {what}; name a .gguf file, or set backend to one of " + ", ".join(
        sorted(e.wire_name for e in engines())
    )


def adapter_faults(engine: Engine, model: Model) -> list[str]:
    """What is wrong with the LoRA adapters of a deployment for this engine, a sentence each."""
    if not model.lora_adapters or selection_of(engine) is not None:
        return []
    able = sorted(one.wire_name for one in engines() if selection_of(one) is not None)
    return [f"The {engine.wire_name} backend takes no LoRA adapters; these do: {', '.join(able)}"]

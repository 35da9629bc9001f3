"""All engines (every module of this folder that has an ``ENGINE``), and which of them runs a model."""

from __future__ import annotations

from functools import cache

from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.model import Model
from gpustack.errors import Invalid
from gpustack.plugins import siblings

from .engine import Engine


@cache
def engines() -> tuple[Engine, ...]:
    """All engines, in the order in which they are asked whether they run a model: by module name."""
    return tuple(module.ENGINE for module in siblings(__package__) if hasattr(module, "ENGINE"))


def engine_by_name(name: str) -> Engine | None:
    """The engine with that name, inside or in the API."""
    return next((e for e in engines() if name in (e.name, e.wire_name)), None)


def engine_for(model: Model, facts: ModelFacts | None = None) -> Engine:
    """The engine that runs ``model``: the backend it names, else the first that serves it.

    Raises ``Invalid`` with a sentence when there is none.
    """
    if model.backend:
        named = engine_by_name(model.backend)
        if named is None:
            known = ", ".join(sorted(e.wire_name for e in engines()))
            raise Invalid(
                f"Backend {model.backend!r} is not known here; this version has {known} (custom runs your command)"
            )
        return named
    for engine in engines():
        if engine.serves(model, facts):
            return engine
    raise Invalid(_nobody(model, facts))


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

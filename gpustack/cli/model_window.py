"""How much of a conversation a deployment can hold, as its engine is told."""

from __future__ import annotations

from gpustack.cli.session import Doc
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.model import Model
from gpustack.engines import llama_cpp
from gpustack.engines.engine import Engine
from gpustack.engines.registry import engine_by_name


def window_of(document: Doc) -> int | None:
    """Tokens that prompt and answer of one request may have together; ``None`` if that is not bounded, or not known.

    The number of requests at a time may still be chosen by the memory there is, which can make it less.
    """
    engine = _engine(document)
    if engine is None:
        return None
    return engine.context(
        Model(
            name="asked",
            source=ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/model"),
            backend=engine.wire_name,
            backend_parameters=tuple(map(str, document.get("backend_parameters") or ())),
            env={str(name): str(value) for name, value in (document.get("env") or {}).items()},
        )
    )


def window_flag(document: Doc) -> str | None:
    """The parameter by which its engine is told the window; ``None`` if there is none."""
    engine = _engine(document)
    if engine is llama_cpp.ENGINE:
        return llama_cpp.CTX_FLAGS[1]
    memory = None if engine is None else engine.memory
    return memory.context[0] if memory is not None and memory.context else None


def _engine(document: Doc) -> Engine | None:
    name = document.get("backend")
    return None if name is None else engine_by_name(str(name))

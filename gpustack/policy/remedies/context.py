"""A shorter context."""

from __future__ import annotations

from gpustack.engines import llama_cpp, parameters
from gpustack.engines.registry import engine_by_name
from gpustack.policy.estimate.safetensors_demand import context_of
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.remedy import Remedy, of_model
from gpustack.policy.trial import Trial, changing

RANK = 50
KIND = "context"
STEP = 256
"""Tokens: engines round a context to as many."""
LEAST = 1024
_FAR = 4
"""So many times shorter a context takes less than one that is kept in the narrowest type."""


def find(trial: Trial) -> Remedy | None:
    """The largest multiple of ``STEP``, below what is asked, with which it fits."""
    request = trial.request
    flags, asked = _context(request)
    if asked is None:
        return None
    given = request.model.backend_parameters

    def of(size: int) -> Remedy:
        changed = parameters.with_value(given, flags, _long(flags), str(size))
        sentence = f"lower {_long(flags)} from {asked} to {size} or below"
        return changing(KIND, sentence, of_model(request, "backend_parameters", changed))

    found = trial.largest(LEAST // STEP, (asked - 1) // STEP, lambda number: trial.helps(of(number * STEP)))
    if found is None:
        if asked >= LEAST * _FAR:
            trial.hopeless.add(KIND)
        return None
    return of(found * STEP)


def _long(flags: tuple[str, ...]) -> str:
    return next(flag for flag in flags if flag.startswith("--"))


def _context(request: PlacementRequest) -> tuple[tuple[str, ...], int | None]:
    """The parameter that sets the length of a request, and that length; ``None`` where memory does not depend on it."""
    facts, engine = request.facts, engine_by_name(request.engine_name)
    if facts is None or not facts.is_complete or engine is None:
        return (), None
    if engine.name == llama_cpp.ENGINE.name:
        model = request.model
        cells = parameters.number_of(model.backend_parameters, *llama_cpp.CTX_FLAGS)
        return llama_cpp.CTX_FLAGS, cells if cells and cells > 0 else llama_cpp.slots(model).context
    if engine.memory is None or not engine.memory.context or not facts.caches:
        return (), None
    return engine.memory.context, context_of(request.model, facts, engine.memory)

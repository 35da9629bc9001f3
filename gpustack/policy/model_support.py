"""What is wrong with a model of safetensors whatever the workers have: it is an adapter, or needs code of its own."""

from __future__ import annotations

import json

from gpustack.domain.architecture import category_of
from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Category, Model
from gpustack.engines import parameters
from gpustack.engines.memory import SafetensorsMemory

from .estimate.safetensors_demand import divides_heads, group_sizes


def faults_of_model(model: Model, facts: ModelFacts, memory: SafetensorsMemory) -> list[str]:
    """A sentence for each reason why the engine would not load it."""
    what, faults = model.source.readable, []
    if facts.adapter_of is not None:
        base = facts.adapter_of or "the model it was made for"
        return [
            f"the source {what} is a LoRA adapter of {base}, not a model: deploy {base}, and give it this adapter"
        ]
    if facts.remote_code and memory.code and not parameters.has(model.backend_parameters, *memory.code):
        faults.append(
            f"the model {what} ({facts.architecture or facts.model_type}) is loaded by program code in its "
            f"repository, which is run only if you allow it: read it, and add {memory.code[0]} to the parameters of "
            "the deployment"
        )
    return [*faults, *_faults_of_division(model, facts, memory)]


def _faults_of_division(model: Model, facts: ModelFacts, memory: SafetensorsMemory) -> list[str]:
    flags = memory.tensor_parallel
    size = parameters.number_of(model.backend_parameters, *flags) if flags else None
    if size is None or size < 1 or not facts.is_complete or divides_heads(facts, size):
        return []
    heads, keys = max(facts.heads, default=0), max(facts.kv_heads, default=0)
    among = f"{heads} heads of attention" + (f" and {keys} of keys" if keys != heads else "")
    *most, last = (str(one) for one in group_sizes(facts))
    choice = f"{', '.join(most)} or {last}" if most else last
    return [f"{flags[0]} {size} does not divide the {among} of {model.source.readable}: it can be {choice}"]


def overridden_category(model: Model, memory: SafetensorsMemory | None) -> Category | None:
    """The category of the architecture that the deployment's parameters lay over that of the files; ``None`` if they
    lay none over it."""
    text = (
        parameters.value_of(model.backend_parameters, *memory.overrides)
        if memory and memory.overrides
        else None
    )
    try:
        said = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None
    names = said.get("architectures") if isinstance(said, dict) else None
    return category_of(name for name in names if isinstance(name, str)) if isinstance(names, list) else None

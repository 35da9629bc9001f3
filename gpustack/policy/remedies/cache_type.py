"""A KV cache of fewer bits."""

from __future__ import annotations

from collections.abc import Mapping

from gpustack.engines import llama_cpp, parameters
from gpustack.engines.registry import engine_by_name
from gpustack.policy.remedies import context
from gpustack.policy.remedy import Remedy, of_model
from gpustack.policy.trial import Trial, changing

RANK = 55
KIND = "cache_type"
_BITS: Mapping[str, float] = {
    "f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5, "iq4_nl": 4.5,
}  # fmt: skip
_NARROWER = ("q8_0", "q4_0")
"""Of llama.cpp's types those that are in common use, the least lossy first."""
_OF_ENGINES: Mapping[str, str] = {"vllm": "fp8", "sglang": "fp8_e5m2"}


def find(trial: Trial) -> Remedy | None:
    """The widest of the usual types, narrower than the present one, with which it fits."""
    facts = trial.request.facts
    if facts is None or not facts.is_complete or context.KIND in trial.hopeless:
        return None
    if trial.request.engine_name == llama_cpp.ENGINE.name:
        return _of_llama(trial)
    engine = engine_by_name(trial.request.engine_name)
    name = _OF_ENGINES.get(trial.request.engine_name)
    given = trial.request.model.backend_parameters
    if engine is None or engine.memory is None or name is None or not facts.caches:
        return None
    flags = engine.memory.cache_type
    if not flags or parameters.value_of(given, *flags) not in (None, "auto", "bfloat16", "float16"):
        return None
    changed = parameters.with_value(given, flags, flags[0], name)
    sentence = f"keep the KV cache in 8 bits ({flags[0]} {name})"
    remedy = changing(KIND, sentence, of_model(trial.request, "backend_parameters", changed))
    return remedy if trial.helps(remedy) else None


def _of_llama(trial: Trial) -> Remedy | None:
    given = trial.request.model.backend_parameters
    if parameters.value_of(given, *llama_cpp.FLASH_FLAGS) in ("off", "0"):
        return None  # without it values must not be quantised
    key = parameters.value_of(given, *llama_cpp.KEY_TYPE_FLAGS) or "f16"
    value = parameters.value_of(given, *llama_cpp.VALUE_TYPE_FLAGS) or "f16"
    narrower = [name for name in _NARROWER if _BITS[name] < min(_BITS.get(key, 16), _BITS.get(value, 16))]

    def of(name: str) -> Remedy:
        changed = parameters.with_value(given, llama_cpp.KEY_TYPE_FLAGS, "--cache-type-k", name)
        changed = parameters.with_value(changed, llama_cpp.VALUE_TYPE_FLAGS, "--cache-type-v", name)
        sentence = f"keep the KV cache as {name} (--cache-type-k {name} --cache-type-v {name})"
        return changing(KIND, sentence, of_model(trial.request, "backend_parameters", changed))

    if not narrower or not trial.helps(of(narrower[-1])):
        return None
    return next(of(name) for name in narrower if name == narrower[-1] or trial.helps(of(name)))

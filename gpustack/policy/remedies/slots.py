"""Fewer requests at a time, each with the context that it has now, where the deployment sets their number."""

from __future__ import annotations

from gpustack.engines import llama_cpp, parameters
from gpustack.policy.remedy import Remedy, of_model
from gpustack.policy.trial import Trial, changing

RANK = 45
KIND = "slots"


def find(trial: Trial) -> Remedy | None:
    """The largest number with which it fits. Other engines, and where no number is set, take fewer by themselves."""
    request = trial.request
    given = request.model.backend_parameters
    if request.engine_name != llama_cpp.ENGINE.name or llama_cpp.is_unified(request.model):
        return None
    asked = parameters.number_of(given, *llama_cpp.PARALLEL_FLAGS)
    if asked is None or asked < 2:
        return None
    each = llama_cpp.slots(request.model).context
    cells = parameters.number_of(given, *llama_cpp.CTX_FLAGS)

    def with_slots(count: int) -> Remedy:
        sentence = f"lower --parallel from {asked} to {count} or below"
        changed = parameters.with_value(given, llama_cpp.PARALLEL_FLAGS, "--parallel", str(count))
        if cells is not None and cells > 0:
            sentence += f", and --ctx-size to {each * count} so that each request keeps {each} tokens"
            changed = parameters.with_value(changed, llama_cpp.CTX_FLAGS, "--ctx-size", str(each * count))
        return changing(KIND, sentence, of_model(request, "backend_parameters", changed))

    count = trial.largest(1, asked - 1, lambda number: trial.helps(with_slots(number)))
    return None if count is None else with_slots(count)

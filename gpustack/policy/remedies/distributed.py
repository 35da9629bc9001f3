"""Allow a model to be divided among workers."""

from __future__ import annotations

import attrs

from gpustack.policy.gang import may_span
from gpustack.policy.remedy import Remedy, of_model
from gpustack.policy.trial import Trial, changing

RANK = 35
KIND = "distributed"
_FIELD = "distributed_inference_across_workers"


def find(trial: Trial) -> Remedy | None:
    """Where it is not allowed now, and its engine can."""
    if trial.spans:
        return None
    allowed = attrs.evolve(
        trial.request, model=attrs.evolve(trial.request.model, distributed_inference_across_workers=True)
    )
    if not may_span(allowed):
        return None
    sentence = f"allow it to be divided among workers ({_FIELD})"
    remedy = changing(KIND, sentence, of_model(trial.request, _FIELD, True))
    wider = Trial(allowed, trial.snapshot)  # of the workers that are looked at, those for gangs are more
    return remedy if wider.helps(remedy) else None

"""Let a deployment prefer to be apart from what it must be apart from now."""

from __future__ import annotations

import attrs

from gpustack.policy.remedy import Remedy, of_model
from gpustack.policy.trial import Trial, changing

RANK = 28
KIND = "anti_affinity"


def find(trial: Trial) -> Remedy | None:
    """Where it has a place then."""
    apart = trial.request.model.anti_affinity
    if apart is None or not apart.required:
        return None
    terms = [attrs.asdict(term) for term in (*apart.required, *apart.preferred)]
    sentence = "prefer its anti_affinity in place of requiring it"
    value = {"required": [], "preferred": terms}
    remedy = changing(KIND, sentence, of_model(trial.request, "anti_affinity", value))
    return remedy if trial.helps(remedy) else None

"""Want no more replicas than have a place."""

from __future__ import annotations

from gpustack.policy.remedy import Remedy, of_model
from gpustack.policy.trial import Trial, changing

RANK = 95
KIND = "replicas"
ONLY_ASKED = True


def find(trial: Trial) -> Remedy | None:
    """Where some have one: those serve, and nothing waits any more."""
    model = trial.request.model
    there = sum(
        instance.placement is not None
        and instance.deleted_at is None
        and instance.generation == model.generation
        for instance in trial.snapshot.instances_of(model.id)
    )
    if not 0 < there < model.replicas:
        return None
    sentence = f"lower its replicas from {model.replicas} to {there}, which have a place"
    return changing(KIND, sentence, of_model(trial.request, "replicas", there))

"""Let the scheduler choose GPUs instead of those picked by hand."""

from __future__ import annotations

from gpustack.policy.remedy import Remedy, of_model
from gpustack.policy.trial import Trial, changing

RANK = 30
KIND = "other_gpus"


def find(trial: Trial) -> Remedy | None:
    """Where any other are free."""
    if not trial.request.gpu_ids:
        return None
    sentence = "select other GPUs, or none (gpu_selector)"
    remedy = changing(KIND, sentence, of_model(trial.request, "gpu_selector", None))
    return remedy if trial.helps(remedy) else None

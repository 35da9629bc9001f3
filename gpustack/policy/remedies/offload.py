"""Allow a part of the layers, or all, to run on the CPU."""

from __future__ import annotations

from gpustack.policy.remedy import Remedy, of_model
from gpustack.policy.trial import Trial, changing

RANK = 40
KIND = "offload"


def find(trial: Trial) -> Remedy | None:
    """Where the deployment forbids it."""
    if trial.request.model.cpu_offloading is not False:
        return None
    remedy = changing(
        KIND, "allow CPU offloading (cpu_offloading)", of_model(trial.request, "cpu_offloading", True)
    )
    return remedy if trial.helps(remedy) else None

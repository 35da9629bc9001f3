"""Wait until a worker that has just joined says what it has: nothing else is known against it."""

from __future__ import annotations

from gpustack.policy.look import objections
from gpustack.policy.remedy import Remedy
from gpustack.policy.trial import Trial

RANK = 5
KIND = "report"


def find(trial: Trial) -> Remedy | None:
    """Only where no worker that has reported has an engine for it: else there is more to say."""
    silent = [worker for worker in trial.unlike if not worker.has_reported and worker.takes_instances]
    for worker in silent:
        told = objections(trial.request, worker, trial.snapshot)
        if all("yet" in sentence for sentence in told):
            return Remedy(kind=KIND, sentence=f"wait until worker {worker.name} has reported what it has")
    return None

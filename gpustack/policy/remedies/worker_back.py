"""Bring workers back that are away."""

from __future__ import annotations

from gpustack.domain.worker import Worker, WorkerState
from gpustack.policy.remedy import FieldChange, Remedy, of_worker
from gpustack.policy.trial import Trial, changing
from gpustack.policy.worker_class import alike

RANK = 20
KIND = "worker_back"


def find(trial: Trial) -> Remedy | None:
    """One where that suffices, else all of them."""
    groups = [
        group
        for group in alike(trial.request, trial.snapshot)
        if group[0].condition.state is not WorkerState.READY
    ]
    single = [
        (group[0], changing(KIND, f"bring worker {group[0].name} back", _ready(group[0]), by_api=False))
        for group in groups
    ]
    if (found := trial.first_that_helps(single)) is not None:
        return found
    away = sorted((worker for group in groups for worker in group), key=lambda worker: worker.id)
    if not trial.spans or len(away) < 2:
        return None
    names = ", ".join(worker.name for worker in away[:3])
    sentence = f"bring {len(away)} workers back that are away ({names}{', …' if len(away) > 3 else ''})"
    remedy = changing(KIND, sentence, *map(_ready, away), by_api=False)
    return remedy if trial.helps(remedy) else None


def _ready(worker: Worker) -> FieldChange:
    return of_worker(worker, "state", WorkerState.READY.value)

"""Let a worker take instances again that is cordoned or drained."""

from __future__ import annotations

from gpustack.domain.worker import Worker
from gpustack.policy.remedy import Remedy, of_worker
from gpustack.policy.trial import Trial, changing

RANK = 25
KIND = "uncordon"


def find(trial: Trial) -> Remedy | None:
    """The first of which that helps."""
    shut = [worker for worker in trial.unlike if not worker.takes_instances]
    return trial.first_that_helps((worker, _open(worker)) for worker in shut)


def _open(worker: Worker) -> Remedy:
    sentence = f"uncordon worker {worker.name}"
    if worker.draining:
        sentence = f"add a worker, or uncordon worker {worker.name}, which ends its drain"
    changes = [of_worker(worker, "cordoned", False)]
    if worker.draining:
        changes.append(of_worker(worker, "draining", False))
    return changing(KIND, sentence, *changes)

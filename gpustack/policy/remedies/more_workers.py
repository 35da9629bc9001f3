"""More workers like one that is there."""

from __future__ import annotations

from gpustack.domain.worker import Worker
from gpustack.policy.remedy import Addition, Remedy
from gpustack.policy.trial import Trial, adding

RANK = 80
KIND = "more_workers"
_MOST_ADDED = 3
_MOST_KINDS = 16


def find(trial: Trial) -> Remedy | None:
    """As few as do; of the smallest kind that does."""
    if trial.request.gpu_ids:
        return None
    kinds = _kinds(trial)
    for worker in kinds:
        if trial.helps(_like(worker, 1, trial), on=_first_new(trial)):
            return _like(worker, 1, trial)
    if not trial.spans:
        return None
    tried = kinds if trial.is_small else kinds[-1:]
    helpful = [one for one in tried if trial.helps(_like(one, _MOST_ADDED, trial, divided=True))]
    for count in range(1, _MOST_ADDED + 1):
        for worker in helpful:
            remedy = _like(worker, count, trial, divided=True)
            if count == _MOST_ADDED or trial.helps(remedy):
                return remedy
    return None


def _like(worker: Worker, count: int, trial: Trial, *, divided: bool = False) -> Remedy:
    added = "a worker" if count == 1 else f"{count} workers"
    sentence = f"add {added} like {worker.name}{', to divide it among workers' if divided else ''}"
    wanted = trial.request.model.worker_selector
    return adding(KIND, sentence, Addition(count=count, like=worker.id, labels=dict(wanted)))


def _first_new(trial: Trial) -> int:
    return max(trial.snapshot.workers, default=0) + 1


def _kinds(trial: Trial) -> list[Worker]:
    """A worker of each kind, the smallest first."""
    found: dict[object, Worker] = {}
    for worker in trial.unlike:
        if worker.has_reported:
            found.setdefault(_kind(worker), worker)
    return sorted(found.values(), key=lambda worker: (weight(worker), worker.id))[-_MOST_KINDS:]


def weight(worker: Worker) -> int:
    """Bytes of all its memory."""
    devices = sum(device.memory.total or 0 for device in worker.status.gpu_devices)
    return devices + (worker.status.memory.total or 0)


def _kind(worker: Worker) -> object:
    devices = [(device.type, device.memory.total) for device in worker.status.gpu_devices]
    return worker.status.memory.total, tuple(devices), worker.status.engines, worker.system_reserved

"""One more GPU in a worker that is there."""

from __future__ import annotations

from collections.abc import Iterable

from gpustack.domain.device import Device
from gpustack.domain.unit import MIB, TIB, human_bytes
from gpustack.domain.worker import Worker
from gpustack.policy.capacity import sound
from gpustack.policy.remedy import Addition, Remedy
from gpustack.policy.trial import Trial, adding

RANK = 85
KIND = "gpu"
ONLY_ASKED = True
_MOST_KINDS = 16
_MOST_WORKERS = 16
_MOST_SIZED = 4
"""In so many workers the least size of a GPU is sought, which is many trials."""


def find(trial: Trial) -> Remedy | None:
    """Of the smallest kind of GPU that is in the cluster and would do; else of so many bytes as would do."""
    workers = trial.roomiest[:_MOST_WORKERS]
    for owner, device in _kinds(trial.snapshot.workers.values()):
        for worker in workers:
            known = _like(device, owner, worker)
            if trial.helps_at(known, worker):
                return known
    best: Remedy | None = None
    for worker in workers[:_MOST_SIZED]:
        remedy = _of_bytes(trial, worker)
        if remedy is not None and (best is None or _vram(remedy) < _vram(best)):
            best = remedy
    return best


def _kinds(workers: Iterable[Worker]) -> list[tuple[Worker, Device]]:
    """A GPU of each kind, the smallest first."""
    found: dict[object, tuple[Worker, Device]] = {}
    for worker in sorted(workers, key=lambda one: one.id):
        for device in sound(worker):
            if device.memory.total is not None and not device.memory.is_unified_memory:
                kind = device.type, device.memory.total, device.compute_capability
                found.setdefault(kind, (worker, device))
    ordered = sorted(found.values(), key=lambda pair: (pair[1].memory.total or 0, pair[0].id))
    return ordered[:_MOST_KINDS]


def _like(device: Device, owner: Worker, worker: Worker) -> Remedy:
    size = human_bytes(device.memory.total)
    sentence = f"add a GPU like GPU {device.index} of worker {owner.name} ({size}) to worker {worker.name}"
    return adding(
        KIND,
        sentence,
        Addition(
            worker_id=worker.id,
            like=owner.id,
            like_gpu=device.index,
            gpu_type=device.type,
            vram=device.memory.total,
        ),
    )


def _of_bytes(trial: Trial, worker: Worker) -> Remedy | None:
    """A GPU of a type that the worker's engine drives."""
    build = trial.request.build_on(worker)
    if build is None or not build.drives:
        return None
    owned = {device.type for device in sound(worker)}
    kind = next((one for one in build.drives if one in owned), build.drives[0])

    def of(size: int) -> Remedy:
        sentence = f"add a GPU with {human_bytes(size * MIB)} ({kind}) to worker {worker.name}"
        return adding(KIND, sentence, Addition(worker_id=worker.id, gpu_type=kind, vram=size * MIB))

    least = trial.least(1, TIB // MIB, lambda size: trial.helps_at(of(size), worker))
    return None if least is None else of(least)


def _vram(remedy: Remedy) -> int:
    return (remedy.added and remedy.added.vram) or 0

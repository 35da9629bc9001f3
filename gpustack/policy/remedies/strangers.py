"""End programs that use a GPU and are no engines of this cluster."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from gpustack.domain.device import Device
from gpustack.domain.unit import MIB, human_bytes
from gpustack.domain.worker import Worker
from gpustack.policy.remedy import GPU_FOREIGN, Remedy, of_worker
from gpustack.policy.trial import Trial, changing

RANK = 68
KIND = "strangers"


def find(trial: Trial) -> Remedy | None:
    """On one GPU where that suffices, and there no more than is needed, in whole MiB; else on all of a worker."""
    return trial.first_of(partial(_of_worker, trial))


def _of_worker(trial: Trial, worker: Worker) -> Remedy | None:
    used = sorted(_used(worker), key=lambda device: (device.memory.foreign or 0, device.index))
    for device in used:
        left = _most(trial, worker, device)
        if left is not None:
            return _remedy(worker, [(device, left)])
    whole = _remedy(worker, [(device, 0) for device in used])
    return whole if len(used) > 1 and trial.helps_at(whole, worker) else None


def _used(worker: Worker) -> Iterator[Device]:
    return (device for device in worker.status.gpu_devices if device.memory.foreign)


def _most(trial: Trial, worker: Worker, device: Device) -> int | None:
    """The most bytes that other programs may go on to use there."""
    now = device.memory.foreign or 0
    found = trial.largest(
        0,
        (now - 1) // MIB,
        lambda number: trial.helps_at(_remedy(worker, [(device, number * MIB)]), worker),
    )
    return None if found is None else found * MIB


def _remedy(worker: Worker, left: list[tuple[Device, int]]) -> Remedy:
    ended = sum((device.memory.foreign or 0) - size for device, size in left)
    where = ", ".join(str(device.index) for device, _ in left)
    sentence = (
        f"end programs that use {human_bytes(ended)} of GPU {where} of worker {worker.name}, not GPUStack's"
    )
    changes = (
        of_worker(worker, GPU_FOREIGN, {"index": device.index, "bytes": size}) for device, size in left
    )
    return changing(KIND, sentence, *changes, by_api=False)

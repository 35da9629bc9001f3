"""Set aside less for the system of a worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gpustack.domain.unit import MIB, human_bytes
from gpustack.domain.worker import Worker
from gpustack.policy.remedy import Remedy, of_worker
from gpustack.policy.trial import Trial, changing

RANK = 70
KIND = "reserve"


def find(trial: Trial) -> Remedy | None:
    """Of memory alone where that suffices, else of video memory alone, else of both; in whole MiB."""
    return trial.first_of(partial(_of_worker, trial))


def _of_worker(trial: Trial, worker: Worker) -> Remedy | None:
    ram, vram = worker.system_reserved.ram, worker.system_reserved.vram

    def fits(host: int, video: int) -> bool:
        return trial.helps_at(_remedy(worker, host, video), worker)

    if not (ram or vram) or not fits(0, 0):
        return None
    if (host := _most(trial, ram, lambda size: fits(size, vram))) is not None:
        return _remedy(worker, host, vram)
    if (video := _most(trial, vram, lambda size: fits(ram, size))) is not None:
        return _remedy(worker, ram, video)
    both = _most(trial, vram, lambda size: fits(0, size)) or 0
    return _remedy(worker, _most(trial, ram, lambda size: fits(size, both)) or 0, both)


def _most(trial: Trial, now: int, fits: Callable[[int], bool]) -> int | None:
    """The most bytes below what is reserved now, in whole MiB."""
    found = trial.largest(0, (now - 1) // MIB, lambda number: fits(number * MIB)) if now else None
    return None if found is None else found * MIB


def _remedy(worker: Worker, ram: int, vram: int) -> Remedy:
    now = worker.system_reserved
    limits = [
        f"{word} from {human_bytes(before)} to {human_bytes(most)} or below"
        for word, before, most in (("ram", now.ram, ram), ("vram", now.vram, vram))
        if most < before
    ]
    sentence = f"lower the system reserve of worker {worker.name}: {', '.join(limits)}"
    return changing(
        KIND, sentence, of_worker(worker, "system_reserved", {"ram": ram, "vram": vram}), by_api=False
    )

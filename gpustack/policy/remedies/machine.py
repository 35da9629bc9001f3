"""A machine with as much memory as it takes."""

from __future__ import annotations

import attrs

from gpustack.domain.unit import MIB, TIB, human_bytes
from gpustack.domain.worker import SystemReserved
from gpustack.policy.placement import Shortage
from gpustack.policy.remedies.label import pairs
from gpustack.policy.remedy import Addition, Remedy
from gpustack.policy.trial import Trial, adding

RANK = 90
KIND = "machine"
_RESERVED = SystemReserved()
_MOST = 1024 * TIB
_USUAL = "cuda"


def find(trial: Trial) -> Remedy | None:
    """With a GPU, where the nearest worker is short of video memory, else without; of what no size does, a sentence
    alone."""
    shortages = [reason.shortage for reason in trial.reasons if reason.shortage is not None]
    nearest = min(shortages, key=lambda shortage: shortage.short, default=None)
    video_first = nearest is not None and nearest.of != "memory"
    for with_gpu in (True, False) if video_first else (False, True):
        added = _least(trial, with_gpu=with_gpu)
        if added is not None:
            return adding(KIND, _sentence(trial, added, nearest), added)
    return Remedy(kind=KIND, sentence=f"add a worker{_labelled(trial)}")


def _least(trial: Trial, *, with_gpu: bool) -> Addition | None:
    demand = trial.request.demand
    new = max(trial.snapshot.workers, default=0) + 1
    if trial.request.gpu_ids or not (demand.on_devices if with_gpu else demand.on_cpu):
        return None
    kind = _gpu_type(trial) if with_gpu else ""

    def of(ram: int, vram: int | None) -> Addition:
        return Addition(
            gpu_type=kind,
            ram=ram * MIB,
            vram=None if vram is None else vram * MIB,
            labels=dict(trial.request.model.worker_selector),
        )

    if with_gpu:  # whole on the GPU: the sizes of both that would do together are many
        model = attrs.evolve(trial.request.model, cpu_offloading=False)
        trial = Trial(attrs.evolve(trial.request, model=model), trial.snapshot)

    def fits(ram: int, vram: int | None) -> bool:
        return trial.helps(adding(KIND, "", of(ram, vram)), on=new)

    most, vram = _MOST // MIB, None
    last = trial.request.variants[-1].demand
    guess = last.cpu() if not with_gpu else last.devices((1.0,)).ram
    if with_gpu:
        whole = -(-(last.devices((1.0,)).vram[0] + _RESERVED.vram) // MIB)
        vram = trial.least(1, most, lambda size: fits(most, size), guess=whole)
        if vram is None:
            return None
    ram = trial.least(1, most, lambda size: fits(size, vram), guess=-(-(guess + _RESERVED.ram) // MIB))
    return None if ram is None else of(ram, vram)


def _gpu_type(trial: Trial) -> str:
    """That of the first GPU in the cluster that a build of the engine drives."""
    for worker in trial.unlike:
        build = trial.request.build_on(worker)
        if build is not None and build.drives:
            return build.drives[0]
    return _USUAL


def _sentence(trial: Trial, added: Addition, nearest: Shortage | None) -> str:
    labelled = _labelled(trial)
    if nearest is None:
        return f"add a worker{labelled}"
    if added.vram is None:
        free = human_bytes(max((added.ram or 0) - _RESERVED.ram, 0))
        return f"add a worker{labelled} with {free} of free memory, or choose a smaller file"
    free = human_bytes(max(added.vram - _RESERVED.vram, 0))
    return f"add a worker{labelled} with {free} of free video memory, or choose a smaller file"


def _labelled(trial: Trial) -> str:
    wanted = trial.request.model.worker_selector
    return f" labelled {pairs(wanted)}" if wanted else ""

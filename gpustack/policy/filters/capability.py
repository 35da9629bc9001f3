"""Only workers with a GPU that is young enough for the types of numbers that the model has."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.policy.capability import is_too_old, sentence
from gpustack.policy.capacity import driven, picked_on, runs_on_cpu
from gpustack.policy.placement import PlacementRequest

OF_SHAPE = True


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when a GPU that may be used is young enough, none is needed, or it is not known."""
    need = request.capability
    if need is None:
        return None
    devices, picked = driven(request, worker), picked_on(request, worker)
    wanted = [device for device in devices if device.index in picked] if picked else devices
    old = [device for device in wanted if is_too_old(device, need)]
    may_do_without = not picked and (
        len(old) < len(wanted) or (request.demand.on_cpu and runs_on_cpu(request, worker))
    )
    if not old or may_do_without:
        return None
    return sentence(old[0], worker.name, need)

"""GPUs that the user picked: only their worker, and only if they are there, without fault and driven by the engine."""

from __future__ import annotations

from gpustack.domain.device import DeviceId
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.policy.capacity import picked_on, undriven, usable
from gpustack.policy.placement import PlacementRequest


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when nothing was picked, or everything picked can be used on this worker."""
    if not request.gpu_ids:
        return None
    picked = picked_on(request, worker)
    if not picked:
        return f"worker {worker.name} has none of the selected GPUs"
    ids = [DeviceId.parse(text) for text in request.gpu_ids]
    for chosen in (device for device in ids if device.worker == worker.name):
        device = worker.device(chosen.index)
        if device is None or device.type != chosen.type:
            return f"worker {worker.name} has no GPU {chosen.type}:{chosen.index}"
        if device.fault is not None:
            return f"GPU {chosen} cannot be used: {device.fault}"
        if device.memory.total is None:
            return f"the memory of GPU {chosen} is unknown"
    parts = {device.index for device in worker.status.gpu_devices if device.slice_profile is not None}
    if len(picked) > 1 and picked & parts:
        return f"a program sees one part of a GPU (MIG instance) at most: select one of worker {worker.name} alone"
    if not picked <= {device.index for device in usable(request, worker)}:
        return (
            undriven(request, worker)
            or f"{request.engine_name} cannot drive every GPU selected on {worker.name}"
        )
    return None

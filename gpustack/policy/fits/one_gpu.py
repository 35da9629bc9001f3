"""The whole model on one device."""

from __future__ import annotations

from gpustack.domain.instance import Claim
from gpustack.policy.capacity import WorkerCapacity
from gpustack.policy.placement import Candidate, PlacementRequest, Shortage

RANK = 1
ONE_SIZE = True


def candidates(request: PlacementRequest, here: WorkerCapacity) -> list[Candidate] | Shortage:
    """Every device it fits on, of those that are alike the first; or what the largest is short of."""
    demand, worker = request.demand, here.worker
    partly = demand.fixed_layers not in (None, demand.total_layers)
    if (
        not demand.on_devices
        or partly
        or len(request.gpu_ids) > 1
        or len(demand.split) > 1
        or not here.devices
        or (demand.device_counts and 1 not in demand.device_counts)
    ):
        return []
    need = demand.devices((1.0,))
    found: list[Candidate] = []
    seen: set[object] = set()
    for device in here.devices:
        kind = device.type, device.memory.total, here.vram(device), here.free.sharing.get(device.index, 0)
        if kind in seen:
            continue
        seen.add(kind)
        taken = demand.taken(need.vram[0], device.memory.total)
        if here.holds(need.ram, device.index, taken):
            claim = Claim(
                ram=need.ram,
                vram={device.index: taken},
                offload_layers=demand.total_layers,
                total_layers=demand.total_layers,
                is_unified_memory=here.unified,
            )
            left = (here.vram(device) - taken) / (device.memory.total or 1)
            found.append(Candidate(worker=worker, gpu_indexes=(device.index,), claim=claim, left=left))
    if found:
        return found
    largest = here.devices[0]
    shortage = here.lacks(need.ram, {largest.index: demand.taken(need.vram[0], largest.memory.total)})
    return shortage or []

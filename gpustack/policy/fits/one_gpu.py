"""The whole model on one device."""

from __future__ import annotations

from collections.abc import Collection

from gpustack.domain.instance import Claim
from gpustack.policy.capacity import WorkerCapacity
from gpustack.policy.placement import Candidate, PlacementRequest, Shortage
from gpustack.policy.seat import Prospect
from gpustack.policy.worker_class import Key

RANK = 1
ONE_SIZE = True


def candidates(request: PlacementRequest, here: WorkerCapacity) -> list[Candidate] | Shortage:
    """Every device it fits on, of those that are alike the first; or what the largest is short of."""
    demand, worker = request.demand, here.worker
    if not here.devices or not _may(request):
        return []
    need = demand.devices((1.0,))
    largest = here.devices[0]
    shortage = here.lacks(need.ram, {largest.index: demand.taken(need.vram[0], largest.memory.total)})
    if shortage is not None and need.vram[0] > here.vram(largest):
        return shortage
    found: list[Candidate] = []
    seen: set[object] = set()
    sharing = here.free.sharing
    for device in here.devices:
        total, free = device.memory.total, here.vram(device)
        taken = demand.taken(need.vram[0], total)
        if taken > free or not here.holds(need.ram, device.index, taken):
            continue
        kind = device.type, total, free, sharing.get(device.index, 0)
        if kind in seen:
            continue
        seen.add(kind)
        claim = Claim(
            ram=need.ram,
            vram={device.index: taken},
            offload_layers=demand.total_layers,
            total_layers=demand.total_layers,
            is_unified_memory=here.unified,
        )
        left = (free - taken) / (total or 1)
        found.append(Candidate(worker=worker, gpu_indexes=(device.index,), claim=claim, left=left))
    return found or shortage or []


def _may(request: PlacementRequest) -> bool:
    """Whether the deployment may be on one device."""
    demand = request.demand
    partly = demand.fixed_layers not in (None, demand.total_layers)
    return (
        demand.on_devices
        and not partly
        and len(request.gpu_ids) < 2
        and len(demand.split) < 2
        and (not demand.device_counts or 1 in demand.device_counts)
    )


def best(
    request: PlacementRequest, key: Key, drives: Collection[int], prospect: Prospect
) -> tuple[int, float, float] | None:
    """What is best on the workers of a class, told from numbers: the devices, the score, and the share that stays free;
    ``None`` where it fits on no device. Never less than any of the candidates has.

    ``drives`` are the kinds of devices that may be used."""
    if not _may(request):
        return None
    demand, totals = request.demand, key.shape.totals
    need = demand.devices((1.0,))
    if need.ram > prospect.free_ram:
        return None
    found: tuple[int, float, float] | None = None
    former: object = None
    prospect.ram = need.ram
    for device in key.devices:
        kind, free, sharing = device
        if device == former or free < need.vram[0] or kind not in drives:
            continue
        former, total = device, totals[kind]
        taken = demand.taken(need.vram[0], total)
        if taken <= free:
            prospect.free, prospect.sharing, prospect.vram = free, (sharing,), taken
            here = 1, prospect.score, (free - taken) / (total or 1)
            found = here if found is None else max(found, here)
    return found

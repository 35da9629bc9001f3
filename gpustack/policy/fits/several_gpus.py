"""The whole model on as few devices of one worker as hold it, all of one type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from gpustack.domain.device import Device
from gpustack.domain.instance import Claim
from gpustack.domain.unit import MIB
from gpustack.policy.capacity import WorkerCapacity
from gpustack.policy.gang import by_type
from gpustack.policy.placement import Candidate, PlacementRequest, Shortage

RANK = 2


def candidates(request: PlacementRequest, here: WorkerCapacity) -> list[Candidate] | Shortage:
    """The smallest group it fits on, or what the largest is short of."""
    demand = request.demand
    partly = demand.fixed_layers not in (None, demand.total_layers)
    if not demand.on_devices or partly or len(request.gpu_ids) == 1:
        return []
    shortage: Shortage | None = None
    for group in groups(request, here):
        if len(group) < 2:
            continue
        for shares in divisions(request, here, group):
            found, lacking = _try(request, here, group, shares)
            if found is not None:
                return [found]
            if lacking is not None and (shortage is None or lacking.short < shortage.short):
                shortage = lacking
    return shortage or []


def groups(request: PlacementRequest, here: WorkerCapacity) -> Iterator[tuple[Device, ...]]:
    """Devices that may work together, fewest first; within a size those with most room, by ascending index.

    All that were picked by hand, or as many as the user's split has shares; never a number that the model cannot be
    divided among.
    """
    together = by_type(here)
    sizes = range(1, max((len(members) for members in together.values()), default=0) + 1)
    if request.gpu_ids:
        sizes = range(len(request.gpu_ids), len(request.gpu_ids) + 1)
    elif request.demand.split:
        sizes = range(len(request.demand.split), len(request.demand.split) + 1)
    for size in sizes:
        if request.demand.device_counts and size not in request.demand.device_counts:
            continue
        for _, members in sorted(together.items()):
            if len(members) >= size:
                yield tuple(sorted(members[:size], key=lambda device: device.index))


def divisions(
    request: PlacementRequest, here: WorkerCapacity, group: Sequence[Device]
) -> Iterator[tuple[int, ...]]:
    """Ways to divide layers among a group: equally where the engine does; as the user says, else by free memory (MiB),
    else evenly."""
    if request.demand.equal:
        yield (1,) * len(group)
        return
    if request.demand.split:
        yield tuple(max(1, round(share * 1000)) for share in request.demand.split)
        return
    yield tuple(max(1, here.vram(device) // MIB) for device in group)
    yield (1,) * len(group)


def shared(lacking: Shortage, group: Sequence[Device]) -> Shortage:
    """The same shortage, whose sentence says that the figure is one device's share."""
    if len(group) < 2 or lacking.of == "memory":
        return lacking
    return attrs.evolve(lacking, of=f"{lacking.of} for its share among {len(group)} GPUs")


def _try(
    request: PlacementRequest, here: WorkerCapacity, group: Sequence[Device], shares: Sequence[int]
) -> tuple[Candidate | None, Shortage | None]:
    demand = request.demand
    need = demand.devices(shares)
    vram = {
        device.index: demand.taken(size, device.memory.total)
        for device, size in zip(group, need.vram, strict=True)
    }
    lacking = here.lacks(need.ram, vram)
    if lacking is not None:
        return None, shared(lacking, group)
    claim = Claim(
        ram=need.ram,
        vram=vram,
        offload_layers=demand.total_layers,
        total_layers=demand.total_layers,
        tensor_split=() if demand.equal else tuple(shares),
        is_unified_memory=here.unified,
    )
    total = sum(device.memory.total or 0 for device in group)
    left = sum(here.vram(device) - vram[device.index] for device in group) / max(total, 1)
    return Candidate(worker=here.worker, gpu_indexes=tuple(vram), claim=claim, left=left), None

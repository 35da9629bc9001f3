"""The whole model on as few devices of one worker as hold it, all of one type."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import attrs

from gpustack.domain.device import Device
from gpustack.domain.instance import Claim
from gpustack.domain.unit import MIB
from gpustack.policy.capacity import WorkerCapacity
from gpustack.policy.gang import by_type
from gpustack.policy.placement import Candidate, PlacementRequest, Shortage
from gpustack.policy.seat import Prospect
from gpustack.policy.topology import nearest
from gpustack.policy.worker_class import Key

RANK = 2
MOST_OF_LLAMA_CPP = 15
"""Devices of one engine: its scheduler takes 16 backends (``GGML_SCHED_MAX_BACKENDS``), of which the processor is one,
and ends with an assertion where there are more."""


def candidates(request: PlacementRequest, here: WorkerCapacity) -> list[Candidate] | Shortage:
    """The smallest group it fits on, or what the largest is short of."""
    if not _may(request):
        return []
    shortage: Shortage | None = None
    hopeless: tuple[Device, ...] | None = None
    for group in groups(request, here):
        if len(group) < 2:
            continue
        if sum([here.vram(device) for device in group]) < request.demand.least(len(group)):
            hopeless = group
            continue
        for shares in divisions(request, here, group):
            found, lacking = _try(request, here, group, shares)
            if found is not None:
                return [found]
            shortage = _less(shortage, lacking)
    if shortage is None and hopeless is not None:  # the largest tells what is missing
        shares = next(divisions(request, here, hopeless))
        shortage = _try(request, here, hopeless, shares)[1]
    return shortage or []


def _less(one: Shortage | None, other: Shortage | None) -> Shortage | None:
    return one if other is None or (one is not None and one.short <= other.short) else other


def groups(request: PlacementRequest, here: WorkerCapacity) -> Iterator[tuple[Device, ...]]:
    """Devices that may work together, fewest first; within a size those with most room, of equal ones those that are
    joined best, by ascending index.

    All that were picked by hand, or as many as the user's split has shares; never a number that the model cannot be
    divided among.
    """
    together = by_type(here)
    for size in _sizes(request, max((len(members) for members in together.values()), default=0)):
        for _, members in sorted(together.items()):
            if len(members) >= size:
                yield tuple(sorted(nearest(members, size, here), key=lambda device: device.index))


def _sizes(request: PlacementRequest, there: int) -> Iterator[int]:
    """The numbers of devices to try where there are so many of a type."""
    sizes = range(1, min(there, MOST_OF_LLAMA_CPP) + 1) if _is_llama_cpp(request) else range(1, there + 1)
    if given := len(request.gpu_ids) or len(request.demand.split):
        sizes = range(given, given + 1)
    counts = request.demand.device_counts
    return (size for size in sizes if not counts or size in counts)


def _is_llama_cpp(request: PlacementRequest) -> bool:
    return request.engine_name == "llama.cpp"


def _may(request: PlacementRequest) -> bool:
    """Whether the deployment may be on several devices as a whole."""
    demand = request.demand
    partly = demand.fixed_layers not in (None, demand.total_layers)
    return demand.on_devices and not partly and len(request.gpu_ids) != 1


def best(
    request: PlacementRequest, key: Key, drives: Collection[int], prospect: Prospect
) -> tuple[int, float, float] | None:
    """What is best on the workers of a class, told from numbers: the devices, the score, and the share that stays free;
    ``None`` where it fits on none. No more devices, and no less of the others, than the candidate has.

    ``drives`` are the kinds of devices that may be used."""
    if not _may(request):
        return None
    shape, by_type = key.shape, dict[str, list[tuple[int, int, int]]]()
    for kind, free, sharing in key.devices:
        if kind in drives and kind in shape.types and free >= 0:
            by_type.setdefault(shape.types[kind], []).append((-free, sharing, kind))
    most = max(map(len, by_type.values()), default=0)
    found: tuple[int, float, float] | None = None
    for members in by_type.values():
        members.sort()
    for size in _sizes(request, most):
        least = request.demand.least(size)
        for members in by_type.values():
            chosen = members[:size]
            free = -sum([one[0] for one in chosen])
            if size < 2 or len(chosen) < size or free < least:
                continue
            prospect.free, prospect.sharing = None, [one[1] for one in chosen]
            total = sum([shape.totals[one[2]] or 0 for one in chosen])
            here = size, prospect.score, (free - least) / max(total, 1)
            found = here if found is None else max(found, here, key=lambda one: one[1:])
        if found is not None:
            break  # more devices come after
    return found


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

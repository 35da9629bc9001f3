"""What no GPUs hold and no worker alone, on several workers whose host memory counts too: the last resort."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.policy.capacity import WorkerCapacity
from gpustack.policy.fits.host_gang import among_hosts
from gpustack.policy.fits.several_gpus import MOST_OF_LLAMA_CPP
from gpustack.policy.gang import ground, may_span, refusal
from gpustack.policy.placement import Candidate, PlacementRequest, Rejection
from gpustack.policy.rpc import RpcDivision, RpcPlace, lenders, local_places, mains

RANK = 8


def gangs(
    request: PlacementRequest, rooms: Sequence[WorkerCapacity], snapshot: Snapshot
) -> list[Candidate] | Rejection:
    """A gang of as few members as hold the model; or why there is none."""
    if request.model.cpu_offloading is False or not may_span(request) or len(request.picked) == 1:
        return []
    found = ground(request, rooms)
    reason: Rejection | None = None
    for group in found.groups:
        gang = among_hosts(request, group, snapshot) if request.demand.equal else _uneven(request, group)
        if isinstance(gang, Candidate):
            return [gang]
        reason = reason or gang
    return reason or []


def _uneven(request: PlacementRequest, group: Sequence[WorkerCapacity]) -> Candidate | Rejection | None:
    """As many layers as possible on GPUs of all, the others in the memory of hosts."""
    demand = request.demand
    if not demand.on_devices or demand.total_layers is None or demand.fixed_layers == demand.total_layers:
        return None
    reason: Rejection | None = None
    for main in mains(request, group):
        own, remote = local_places(request, main), lenders(request, group, main, hosts=True)
        room = max(MOST_OF_LLAMA_CPP - len(own), 0)
        most = len(remote) if request.gpu_ids else min(len(remote), request.gangs.most_remote, room)
        for count in [most] if request.gpu_ids and most else range(1, most + 1):
            places = (*remote[:count], *own)
            if demand.split and len(demand.split) != len(places):
                continue
            division = _filled(RpcDivision(request, main, places, count, len(places)))
            if division is not None:
                return division.candidate(_note(division))
        if most and reason is None:
            reason = _short(request, main, remote[:most], own)
    return reason


def _filled(least: RpcDivision) -> RpcDivision | None:
    """The division with as many layers on the places as they hold, if the main worker's memory holds the rest.

    Where all places are memory of hosts, the main worker takes its part by free memory like them.
    """
    total, fixed = least.request.demand.total_layers or 0, least.request.demand.fixed_layers
    full = _fullest(least)
    if full.lacking() is not None:
        return None
    if fixed is not None or any(place.device is not None for place in least.places):
        return full
    own, others = least.main.ram, sum(place.free for place in least.places)
    most = full.layers or total
    even = attrs.evolve(least, layers=min(most, max(1, round(total * others / max(own + others, 1)))))
    return even if even.lacking() is None else full


def _fullest(least: RpcDivision) -> RpcDivision:
    """The division with as many layers on the places as they hold, one at least, or as the deployment sets."""
    demand = least.request.demand
    if demand.fixed_layers is not None:
        return attrs.evolve(least, layers=demand.fixed_layers)
    low, high = 1, demand.total_layers or 0
    while low < high:
        middle = (low + high + 1) // 2
        if _places_hold(attrs.evolve(least, layers=middle)):
            low = middle
        else:
            high = middle - 1
    return attrs.evolve(least, layers=low)


def _places_hold(division: RpcDivision) -> bool:
    return all(need <= place.free for place, need in zip(division.places, division.need.vram, strict=True))


def _note(division: RpcDivision) -> str:
    others = sorted({place.here.worker.name for place in division.places[: division.remote]})
    total = division.request.demand.total_layers
    main = division.main.worker.name
    return (
        f"Divided among workers over RPC: {main} leads, {division.layers} of {total} layers are with "
        f"{', '.join(others)}"
        + (" and on its own GPUs" if len(division.places) > division.remote else "")
        + ", the others on its CPU, which is slower"
    )


def _short(
    request: PlacementRequest, main: WorkerCapacity, others: Sequence[RpcPlace], own: Sequence[RpcPlace]
) -> Rejection:
    """What each part needs where ``main`` leads, and which memory is too small for its part."""
    name = main.worker.name
    if split := request.demand.split:
        if not 0 < len(split) - len(own) <= len(others):
            return refusal(
                f"the parameters divide it among {len(split)} devices, and worker {name} has {len(own)} and is lent "
                f"{len(others)}"
            )
        others = others[: len(split) - len(own)]
    places = (*others, *own)
    division = _fullest(RpcDivision(request, main, places, len(others), len(places)))
    parts, shortage = [human_bytes(need) for need in sorted(division.need.vram)], division.lacking()
    each = parts[0] if parts[0] == parts[-1] else f"{parts[0]} to {parts[-1]}"
    free = main.ram + sum(place.free for place in places)
    count = "1 GPU or host" if len(others) == 1 else f"{len(others)} GPUs or hosts"
    why = (
        f"with {division.layers} of {request.demand.total_layers} layers divided among devices and hosts each of these "
        f"needs {each}, and worker {name} {human_bytes(division.need.ram)} for the rest"
    )
    if shortage is not None:
        why += f", but {shortage.where} has only {human_bytes(shortage.free)} free"
    return refusal(
        f"worker {name} and {count} of others have {human_bytes(free)} of memory free together: {why}"
    )

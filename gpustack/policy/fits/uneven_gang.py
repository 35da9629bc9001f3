"""The whole model on the GPUs of one worker and on as few of others as hold it, over RPC, divided by free memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.policy.capacity import WorkerCapacity
from gpustack.policy.fits.several_gpus import MOST_OF_LLAMA_CPP
from gpustack.policy.gang import ground, may_span, refusal
from gpustack.policy.placement import Candidate, PlacementRequest, Rejection
from gpustack.policy.rpc import RpcDivision, RpcPlace, lenders, local_places, mains

RANK = 4


def gangs(
    request: PlacementRequest, rooms: Sequence[WorkerCapacity], snapshot: Snapshot
) -> list[Candidate] | Rejection:
    """The gang with fewest remote GPUs, led by the worker with most room; or why there is none."""
    demand = request.demand
    if demand.equal or not demand.on_devices or not may_span(request) or len(request.picked) == 1:
        return []
    found = ground(request, rooms)
    nearest: Rejection | None = None
    for group in found.groups:
        for main in mains(request, group):
            gang = _led_by(request, group, main)
            if isinstance(gang, Candidate):
                return [gang]
            nearest = nearest or gang
    return nearest or found.refusal or []


def _led_by(
    request: PlacementRequest, group: Sequence[WorkerCapacity], main: WorkerCapacity
) -> Candidate | Rejection | None:
    own, remote = local_places(request, main), lenders(request, group, main)
    if not own:
        return None
    if not remote:
        return refusal(
            f"no other worker lends {main.worker.name} a GPU with room for a layer of it (too little memory free, or "
            "--disable-rpc-servers)"
        )
    layers = request.demand.fixed_layers
    last: Rejection | None = None
    for count in _counts(request, own, remote):
        division = RpcDivision(request, main, (*remote[:count], *own), count, layers)
        balanced = division.balanced()
        if balanced is not None:
            return balanced.candidate(_note(balanced))
        last = _short(division)
    return last


def _counts(request: PlacementRequest, own: Sequence[RpcPlace], remote: Sequence[RpcPlace]) -> Iterator[int]:
    """Numbers of remote GPUs to try, few first: all that were picked, or as many as the user's split has shares for."""
    if request.gpu_ids:
        yield len(remote)
        return
    most = min(len(remote), request.gangs.most_remote, MOST_OF_LLAMA_CPP - len(own))
    split = request.demand.split
    for count in range(1, most + 1):
        if not split or count + len(own) == len(split):
            yield count


def _note(division: RpcDivision) -> str:
    others = sorted({place.here.worker.name for place in division.places[: division.remote]})
    count = "1 GPU" if division.remote == 1 else f"{division.remote} GPUs"
    return f"Divided among workers over RPC: {division.main.worker.name} leads and uses {count} of {', '.join(others)}"


def _short(division: RpcDivision) -> Rejection:
    need, free = sum(division.need.vram), sum(place.free for place in division.places)
    names = len({place.here.worker.id for place in division.places})
    gpus = f"{len(division.places)} GPUs of {names} workers"
    if need > free:
        short = f"they have {human_bytes(free)} free"
    elif (lacking := division.lacking()) is not None:
        short = f"divided by free memory it {lacking.sentence}"
    else:
        short = "it does not divide so"
    return refusal(
        f"{gpus}, led by {division.main.worker.name}, would hold it over RPC with {human_bytes(need)} of video memory; "
        f"{short}"
    )

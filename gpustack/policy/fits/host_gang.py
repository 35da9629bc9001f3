"""What the user divides among several devices, on workers without GPUs, of which each counts as one device.

Where the user sets no number it is tried last, as part of ``memory_gang``.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from gpustack.domain.instance import Claim
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.policy.capacity import WorkerCapacity, runs_on_cpu
from gpustack.policy.gang import count_of, ground, may_span, refusal
from gpustack.policy.placement import Candidate, PlacementRequest, Rejection
from gpustack.policy.seat import best_seats

RANK = 6
_MOST_WORKERS = 16
"""Where the model may be divided among any number of workers, so many are tried at most."""


def gangs(
    request: PlacementRequest, rooms: Sequence[WorkerCapacity], snapshot: Snapshot
) -> list[Candidate] | Rejection:
    """A gang of as many workers as the user set devices; or why there is none."""
    demand = request.demand
    if not demand.equal or not demand.device_counts or 1 in demand.device_counts or not may_span(request):
        return []
    reason: Rejection | None = None
    for group in ground(request, rooms).groups:
        gang = among_hosts(request, group, snapshot)
        if isinstance(gang, Candidate):
            return [gang]
        reason = reason or gang
    return reason or []


def among_hosts(
    request: PlacementRequest, group: Sequence[WorkerCapacity], snapshot: Snapshot
) -> Candidate | Rejection | None:
    """The gang of fewest workers whose memory holds equal shares."""
    demand = request.demand
    if not demand.on_cpu or request.gpu_ids:
        return None
    reason: Rejection | None = None
    for count in demand.device_counts or range(2, _MOST_WORKERS + 1):
        if not 2 <= count <= len(group):
            continue
        need = demand.among_workers((1.0,) * count, count - 1)
        ram = need.ram + need.vram[0]
        seats = [(here, seat) for here in group if (seat := _seat(request, here, ram)) is not None]
        if len(seats) >= count:
            main, *followers = best_seats(request, [seat for _, seat in seats], count, snapshot)
            names = ", ".join(member.worker.name for member in (main, *followers))
            note = f"Divided among the memory of workers {names}, without GPUs"
            return attrs.evolve(main, followers=tuple(followers), note=note)
        reason = refusal(
            f"divided among the memory of {count} workers it needs {human_bytes(ram)} on each, which "
            f"{count_of(here for here, _ in seats)} of {count_of(group)} workers have free"
        )
    return reason


def _seat(request: PlacementRequest, here: WorkerCapacity, ram: int) -> Candidate | None:
    if not runs_on_cpu(request, here.worker) or here.lacks(ram, {}) is not None:
        return None
    left = (here.ram - ram) / max(here.worker.status.memory.total or 1, 1)
    return Candidate(worker=here.worker, claim=Claim(ram=ram, is_unified_memory=here.unified), left=left)

"""Prefers the fullest place that fits, so that large rooms stay free for large models."""

from __future__ import annotations

from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import Candidate, PlacementRequest
from gpustack.policy.seat import Prospect, mean_of_members

NAME = "binpack"


def weight(strategy: PlacementStrategy) -> float:
    """Only where the deployment is to be packed."""
    return 1.0 if strategy is PlacementStrategy.BINPACK else 0.0


def score(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """0 to 100: how much of what is still free the claim would take, devices counting twice as much as memory."""
    return mean_of_members(_of_member, candidate, request, snapshot)


def most(prospect: Prospect) -> float:
    """The same of a place on one device; of several all that there is."""
    if prospect.free is None:
        return 100.0
    return (_share(prospect.ram, prospect.free_ram) + 2 * _share(prospect.vram, prospect.free)) / 3 * 100


def _of_member(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    free = snapshot.free(candidate.worker, without=request.own_id)
    ram = _share(candidate.claim.ram, free.ram)
    if not candidate.gpu_indexes:
        return ram * 100
    vram = max(_share(size, free.vram.get(index)) for index, size in candidate.claim.vram.items())
    return (ram + 2 * vram) / 3 * 100


def _share(size: int, free: int | None) -> float:
    return min(size / free, 1.0) if free else float(size > 0)

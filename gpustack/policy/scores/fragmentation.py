"""Prefers places after which what is left is of most use: no GPU is begun while another that is in use has room, and
of several the one that it fills most, so that whole and large GPUs stay free for large models."""

from __future__ import annotations

from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import Candidate, PlacementRequest
from gpustack.policy.seat import Prospect, mean_of_members

NAME = "fragmentation"


def weight(strategy: PlacementStrategy) -> float:
    """Much for what is packed; for what is spread it chooses only between places that are equally empty."""
    return 0.1 if strategy is PlacementStrategy.BINPACK else 0.002


def score(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """Half for the share of the GPUs that are in use already, half for how much of what they have free is taken."""
    return mean_of_members(_of_member, candidate, request, snapshot)


def most(prospect: Prospect) -> float:
    """The same of a place on one device; of several all that there is."""
    if prospect.free is None:
        return 100.0
    return (bool(prospect.sharing[0]) + _filled(prospect.vram, prospect.free)) * 50


def _of_member(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    indexes = candidate.gpu_indexes
    if not indexes:
        return 0.0
    free = snapshot.free(candidate.worker, without=request.own_id)
    claimed = candidate.claim.vram
    used = sum([index in free.sharing for index in indexes])
    filled = sum([_filled(claimed.get(index, 0), free.vram.get(index, 0)) for index in indexes])
    return (used + filled) / len(indexes) * 50


def _filled(claimed: int, free: int) -> float:
    return min(claimed / free, 1.0) if free else 1.0

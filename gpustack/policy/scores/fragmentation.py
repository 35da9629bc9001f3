"""Prefers places after which what is left is of most use: no GPU is begun while another that is in use has room, and
of several the one that it fills most, so that whole and large GPUs stay free for large models."""

from __future__ import annotations

from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import Candidate, PlacementRequest
from gpustack.policy.seat import mean_of_members

NAME = "fragmentation"


def weight(strategy: PlacementStrategy) -> float:
    """Much for what is packed; for what is spread it chooses only between places that are equally empty."""
    return 0.1 if strategy is PlacementStrategy.BINPACK else 0.002


def score(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """Half for the share of the GPUs that are in use already, half for how much of what they have free is taken."""
    return mean_of_members(_of_member, candidate, request, snapshot)


def _of_member(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    indexes = candidate.gpu_indexes
    if not indexes:
        return 0.0
    free = snapshot.free(candidate.worker, without=request.own_id)
    claimed, used, filled = candidate.claim.vram, 0, 0.0
    for index in indexes:
        used += index in free.sharing
        left = free.vram.get(index, 0)
        filled += min(claimed.get(index, 0) / left, 1.0) if left else 1.0
    return (used + filled) / len(indexes) * 50

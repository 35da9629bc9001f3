"""Prefers workers whose GPUs are joined well, for what runs on several of them."""

from __future__ import annotations

from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import Candidate, PlacementRequest
from gpustack.policy.seat import Prospect, mean_of_members

NAME = "topology"


def weight(strategy: PlacementStrategy) -> float:
    """Less than it counts for spread whether other models, or replicas of this one, are on a worker."""
    return 0.03


def score(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """How well the GPUs of the worker are joined in general: which of them are taken, the fit chooses. 0 on one GPU."""
    return mean_of_members(_of_member, candidate, request, snapshot)


def most(prospect: Prospect) -> float:
    """The same of a worker alone."""
    return prospect.worker.status.closeness if len(prospect.sharing) > 1 else 0.0


def _of_member(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    several = len(candidate.gpu_indexes) > 1
    return candidate.worker.status.closeness if several else 0.0

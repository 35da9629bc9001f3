"""Prefers workers that have the model's files, so that nothing has to be fetched."""

from __future__ import annotations

from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import Candidate, PlacementRequest
from gpustack.policy.seat import Prospect, mean_of_members
from gpustack.policy.standing import standing_of

NAME = "locality"


def weight(strategy: PlacementStrategy) -> float:
    """Less than it counts for spread whether other models, or replicas of this one, are on a worker."""
    return 0.03


def score(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """100 where all files are there; half of what has come where they are being fetched."""
    return mean_of_members(_of_member, candidate, request, snapshot)


def most(prospect: Prospect) -> float:
    """The same of a worker alone."""
    return standing_of(prospect.request, prospect.snapshot).of(prospect.worker.id).locality * 100


def _of_member(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    return standing_of(request, snapshot).of(candidate.worker.id).locality * 100

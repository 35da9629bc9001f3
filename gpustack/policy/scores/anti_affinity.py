"""Avoids places beside what the deployment had rather be apart from."""

from __future__ import annotations

from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import Candidate, PlacementRequest
from gpustack.policy.seat import Prospect, mean_of_members
from gpustack.policy.standing import standing_of

NAME = "anti_affinity"


def weight(strategy: PlacementStrategy) -> float:
    """It counts against a place, and more than anything that is not asked for by name."""
    return -1.0


def score(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """The share of the preferred anti-affinities against which the place would be."""
    return mean_of_members(_of_member, candidate, request, snapshot)


def most(prospect: Prospect) -> float:
    """The same of a worker alone."""
    return standing_of(prospect.request, prospect.snapshot).of(prospect.worker.id).crowded * 100


def _of_member(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    return standing_of(request, snapshot).of(candidate.worker.id).crowded * 100

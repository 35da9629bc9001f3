"""Avoids workers with taints of ``PreferNoSchedule`` that the deployment does not tolerate."""

from __future__ import annotations

from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.taint import TaintEffect, untolerated
from gpustack.domain.worker import Worker
from gpustack.policy.placement import Candidate, PlacementRequest
from gpustack.policy.seat import Prospect, mean_of_members

NAME = "taint"


def weight(strategy: PlacementStrategy) -> float:
    """It counts against a place, and more than anything that is not asked for by name."""
    return -1.0


def score(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """0 without such taints; 100 for two or more."""
    return mean_of_members(_of_member, candidate, request, snapshot)


def most(prospect: Prospect) -> float:
    """The same of a worker alone."""
    return _unwanted(prospect.worker, prospect.request)


def _of_member(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    return _unwanted(candidate.worker, request)


def _unwanted(worker: Worker, request: PlacementRequest) -> float:
    if not worker.taints:
        return 0.0
    unwanted = untolerated(worker.taints, request.model.tolerations, TaintEffect.PREFER_NO_SCHEDULE)
    return min(len(unwanted) * 50.0, 100.0)

"""Prefers the emptiest place, so that the loss of a worker or device takes few replicas with it."""

from __future__ import annotations

from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import Candidate, PlacementRequest
from gpustack.policy.seat import mean_of_members

NAME = "spread"


def weight(strategy: PlacementStrategy) -> float:
    """Only where the deployment is to be spread."""
    return 1.0 if strategy is PlacementStrategy.SPREAD else 0.0


def score(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """100 for an empty worker, less for other models, still less for replicas of this one; plus up to 10
    for devices that few instances sit on."""
    return mean_of_members(_of_member, candidate, request, snapshot)


def _of_member(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    own_id, model_id = request.own_id, request.model.id
    count, own, others = 0, False, False
    sharing = dict.fromkeys(candidate.gpu_indexes, 0)
    for instance, claim in snapshot.claims_on(candidate.worker.id):
        if instance.id in own_id:
            continue
        count += 1
        if model_id and instance.model_id == model_id:
            own = True
        else:
            others = True
        for index in claim.vram:
            if index in sharing:
                sharing[index] += 1
    base = 100.0 - (10.0 if others else 0.0) - (20.0 if own else 0.0)
    if not sharing:
        return base + 10.0 / (count + 1)
    per_device = 10.0 / (len(candidate.worker.status.gpu_devices) + 1)
    return base + sum(per_device / (more + 1) for more in sharing.values())

"""Prefers the emptiest place, so that the loss of a worker or device takes few replicas with it."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import Candidate, PlacementRequest


def score(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """100 for an empty worker, less for other models, still less for replicas of this one; plus up to 10
    for devices that few instances sit on."""
    held = [
        (instance, claim)
        for instance, claim in snapshot.claims_on(candidate.worker.id)
        if instance.id not in request.own_id
    ]
    own = [instance for instance, _ in held if instance.model_id == request.model.id and request.model.id]
    base = 100.0 - (10.0 if len(held) > len(own) else 0.0) - (20.0 if own else 0.0)
    if not candidate.gpu_indexes:
        return base + 10.0 / (len(held) + 1)
    per_device = 10.0 / (len(candidate.worker.status.gpu_devices) + 1)
    shared = (sum(index in claim.vram for _, claim in held) for index in candidate.gpu_indexes)
    return base + sum(per_device / (count + 1) for count in shared)

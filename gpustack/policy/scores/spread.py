"""Prefers the emptiest place, so that the loss of a worker or device takes few replicas with it."""

from __future__ import annotations

from collections.abc import Sequence

from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import Candidate, PlacementRequest
from gpustack.policy.seat import Prospect, mean_of_members

NAME = "spread"


def weight(strategy: PlacementStrategy) -> float:
    """Only where the deployment is to be spread."""
    return 1.0 if strategy is PlacementStrategy.SPREAD else 0.0


def score(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """100 for an empty worker, less for other models, still less for replicas of this one; plus up to 10
    for devices that few instances sit on."""
    return mean_of_members(_of_member, candidate, request, snapshot)


def most(prospect: Prospect) -> float:
    """The same; beside a replica of its own as if there were no others."""
    others = prospect.count > 0 and not prospect.own
    return _base(others, prospect.own) + _of_devices(prospect.sharing, prospect.devices)


def _of_member(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    own_id, model_id = request.own_id, request.model.id
    held = snapshot.claims.by_worker.get(candidate.worker.id, ())
    there = [one.model_id for one, _ in held if one.id not in own_id]
    own = there.count(model_id) if model_id else 0
    base = _base(len(there) > own, own > 0)
    if not candidate.gpu_indexes:
        return base + 10.0 / (len(there) + 1)
    sharing = snapshot.free(candidate.worker, without=own_id).sharing
    on_each = [sharing.get(index, 0) for index in candidate.gpu_indexes]
    return base + _of_devices(on_each, len(candidate.worker.status.gpu_devices))


def _base(others: bool, own: bool) -> float:
    return 100.0 - (10.0 if others else 0.0) - (20.0 if own else 0.0)


def _of_devices(sharing: Sequence[int], devices: int) -> float:
    per_device = 10.0 / (devices + 1)
    return sum([per_device / (more + 1) for more in sharing])

"""Only workers on which the deployment is beside nothing that it must be apart from, and that must be apart from it."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.standing import standing_of


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when no required anti-affinity is against it."""
    beside = standing_of(request, snapshot).of(worker.id).beside
    if beside is None:
        return None
    where = f"shares {beside.shared} with" if beside.shared else "has"
    why = "beside which the deployment must not be (anti_affinity)"
    if beside.demanded_by:
        why = f"which must not be beside the deployment (anti_affinity of {beside.demanded_by})"
    return f"worker {worker.name} {where} {beside.name}, {why}"

"""A cordoned worker gets nothing new and keeps what it has; a drained one gets nothing new and is emptied."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.policy.placement import PlacementRequest

OF_SHAPE = True


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when the worker takes new instances."""
    if worker.draining:
        return f"worker {worker.name} is being drained"
    return f"worker {worker.name} is cordoned" if worker.cordoned else None

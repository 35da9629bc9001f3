"""Only workers that have the engine."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.policy.placement import PlacementRequest


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when the worker has a build of the engine."""
    if worker.build_of(request.engine_name) is not None:
        return None
    return f"worker {worker.name} has no {request.engine_name}"

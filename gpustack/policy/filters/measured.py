"""Only workers whose memory is known."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.policy.placement import PlacementRequest

OF_SHAPE = True


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when the worker has told its memory."""
    if worker.status.memory.total is None:
        return f"worker {worker.name} has not reported its memory yet"
    return None

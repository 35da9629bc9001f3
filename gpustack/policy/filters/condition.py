"""Only workers that are ready."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker, WorkerState
from gpustack.policy.placement import PlacementRequest

OF_SHAPE = True


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when the worker is ready."""
    if worker.condition.state is WorkerState.READY:
        return None
    why = f" ({worker.condition.why})" if worker.condition.why else ""
    return f"worker {worker.name} is {worker.condition.state.value.replace('_', ' ')}{why}"

"""Only workers that carry every label the deployment selects."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker, unmatched
from gpustack.policy.placement import PlacementRequest


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when all labels match."""
    missing = unmatched(request.model.worker_selector, worker.labels)
    if not missing:
        return None
    pairs = ", ".join(f"{key}={value}" for key, value in sorted(missing.items()))
    return f"worker {worker.name} is not labelled {pairs}"

"""Only workers whose disk has room for the model's files that are not there."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import Worker
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.standing import standing_of


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when they have room beside what others are still to fetch, or it is not known."""
    short = standing_of(request, snapshot).of(worker.id).disk
    if short is None:
        return None
    evicts = worker.evicts_files
    advice = "add a disk" if evicts else "let it remove unused files (--evict-unused-files)"
    return (
        f"worker {worker.name} would have to fetch {human_bytes(short.need)} of model files, and has "
        f"{human_bytes(short.free)} of disk for them: remove some (gpustack files evict --worker {worker.name}), "
        f"{advice}, or choose another --cache-dir"
    )

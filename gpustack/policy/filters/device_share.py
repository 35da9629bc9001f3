"""A share of each GPU that the user lets the engine take must hold what the engine needs there at least."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import Worker
from gpustack.policy.capacity import usable
from gpustack.policy.estimate.safetensors_demand import SafetensorsDemand
from gpustack.policy.placement import PlacementRequest


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when no share is set, or on some number of GPUs it is enough."""
    demand = request.demand
    if not isinstance(demand, SafetensorsDemand) or demand.fraction is None:
        return None
    totals = sorted((device.memory.total or 0 for device in usable(request, worker)), reverse=True)
    if not totals:
        return None
    there = len(totals)
    if demand.spans_workers:
        there = sum(len(usable(request, one)) for one in snapshot.workers.values())
    needs = [demand.devices((1.0,) * count).vram[0] for count in demand.device_counts if count <= there]
    share = int(demand.fraction * totals[0])
    if not needs or min(needs) <= share:
        return None
    flag = demand.memory.fraction[0]
    return (
        f"with {flag} {demand.fraction:g} the engine takes {human_bytes(share)} of a GPU of worker {worker.name}, and "
        f"needs {human_bytes(min(needs))}: raise {flag}, or leave it out"
    )

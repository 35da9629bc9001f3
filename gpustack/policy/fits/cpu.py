"""The whole model in host memory."""

from __future__ import annotations

from gpustack.domain.instance import Claim
from gpustack.domain.worker import Worker
from gpustack.policy.capacity import WorkerCapacity, runs_on_cpu, undriven, usable
from gpustack.policy.placement import Candidate, PlacementRequest, Shortage

RANK = 7
ONE_SIZE = True


def candidates(request: PlacementRequest, here: WorkerCapacity) -> list[Candidate] | Shortage:
    """The worker itself, or what its memory is short of."""
    demand, worker = request.demand, here.worker
    if not demand.on_cpu or not runs_on_cpu(request, worker):
        return []
    need = demand.cpu()
    shortage = here.lacks(need, {})
    if shortage is not None:
        return shortage
    total = demand.total_layers
    claim = Claim(
        ram=need,
        offload_layers=None if total is None else 0,
        total_layers=total,
        is_unified_memory=here.unified,
    )
    left = (here.ram - need) / max(worker.status.memory.total or 1, 1)
    return [Candidate(worker=worker, claim=claim, left=left, note=_why_no_gpu(request, worker))]


def _why_no_gpu(request: PlacementRequest, worker: Worker) -> str:
    if not request.demand.on_devices:
        return ""
    if reason := undriven(request, worker):
        return f"Runs on the CPU, no GPU is claimed: {reason}"
    if usable(request, worker):
        return f"Runs on the CPU: no GPU of worker {worker.name} has room for it"
    return ""

"""A placement in words."""

from __future__ import annotations

from gpustack.domain.instance import Claim, Placement, Subordinate
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes


def where(placement: Placement, snapshot: Snapshot) -> str:
    """``worker node-a, GPU 0 (5.2 GiB of video memory, 0.9 GiB of memory)``, and so on for the other members of a gang;
    claims are estimates."""
    seats = (_seat(placement.share(member), snapshot) for member in range(1 + len(placement.subordinates)))
    return "; ".join(seats)


def _seat(share: Subordinate, snapshot: Snapshot) -> str:
    worker = snapshot.workers.get(share.worker_id)
    name = f"worker {worker.name}" if worker is not None else f"worker {share.worker_id}, which is gone"
    return f"{name}, {_devices(share.gpu_indexes)} ({_claimed(share.claim)})"


def _devices(indexes: tuple[int, ...]) -> str:
    if not indexes:
        return "CPU"
    listed = ", ".join(str(index) for index in indexes)
    return f"GPU {listed}" if len(indexes) == 1 else f"GPUs {listed}"


def _claimed(claim: Claim) -> str:
    parts = [f"{human_bytes(sum(claim.vram.values()))} of video memory"] if claim.vram else []
    parts.append(f"{human_bytes(claim.ram)} of memory")
    return ", ".join(parts)

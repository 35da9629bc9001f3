"""As many layers as fit on devices, the rest on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

from gpustack.domain.device import Device
from gpustack.domain.instance import Claim
from gpustack.policy.capacity import WorkerCapacity
from gpustack.policy.fits.several_gpus import divisions, groups
from gpustack.policy.placement import Candidate, PlacementRequest, Shortage

RANK = 5


def candidates(request: PlacementRequest, here: WorkerCapacity) -> list[Candidate] | Shortage:
    """The group of devices that takes most layers (of equals the smallest), or what even one layer is short of."""
    demand = request.demand
    total = demand.total_layers
    whole = demand.fixed_layers is not None and demand.fixed_layers == total
    if (
        total is None
        or not demand.on_devices
        or whole
        or request.model.cpu_offloading is False
        or not here.devices
    ):
        return []
    best: Candidate | None = None
    shortage: Shortage | None = None
    for group in groups(request, here):
        for shares in divisions(request, here, group):
            found, lacking = _most(request, here, group, shares, total)
            if found is not None and (best is None or _layers(found) > _layers(best)):
                best = found
            if lacking is not None and (shortage is None or lacking.short < shortage.short):
                shortage = lacking
    return [best] if best is not None else shortage or []


def _layers(candidate: Candidate) -> int:
    return candidate.claim.offload_layers or 0


def _most(
    request: PlacementRequest,
    here: WorkerCapacity,
    group: Sequence[Device],
    shares: Sequence[int],
    total: int,
) -> tuple[Candidate | None, Shortage | None]:
    fixed = request.demand.fixed_layers
    low = fixed if fixed is not None else len(group)
    lacking = _lacks(request, here, group, shares, low)
    if lacking is not None:
        return None, lacking
    high = fixed if fixed is not None else total - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _lacks(request, here, group, shares, middle) is None:
            low = middle
        else:
            high = middle - 1
    return _candidate(request, here, group, shares, low), None


def _lacks(
    request: PlacementRequest,
    here: WorkerCapacity,
    group: Sequence[Device],
    shares: Sequence[int],
    layers: int,
) -> Shortage | None:
    need = request.demand.devices(shares, layers)
    return here.lacks(need.ram, dict(zip((d.index for d in group), need.vram, strict=True)))


def _candidate(
    request: PlacementRequest,
    here: WorkerCapacity,
    group: Sequence[Device],
    shares: Sequence[int],
    layers: int,
) -> Candidate:
    need = request.demand.devices(shares, layers)
    vram = {device.index: size for device, size in zip(group, need.vram, strict=True)}
    total = request.demand.total_layers
    claim = Claim(
        ram=need.ram,
        vram=vram,
        offload_layers=layers,
        total_layers=total,
        tensor_split=tuple(shares) if len(group) > 1 else (),
        is_unified_memory=here.unified,
    )
    left = (here.ram - need.ram) / max(here.worker.status.memory.total or 1, 1)
    note = f"{layers} of {total} layers are on {_named(group)}, the others on the CPU, which is slower"
    return Candidate(worker=here.worker, gpu_indexes=tuple(vram), claim=claim, left=left, note=note)


def _named(group: Sequence[Device]) -> str:
    listed = ", ".join(str(device.index) for device in group)
    return f"GPU {listed}" if len(group) == 1 else f"GPUs {listed}"

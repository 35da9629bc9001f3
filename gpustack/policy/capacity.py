"""The capacity of one worker for one replica: free memory, and the devices that the engine's build can drive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from gpustack.domain.device import Device, DeviceId
from gpustack.domain.snapshot import FreeMemory, Snapshot
from gpustack.domain.worker import EngineBuild, Worker
from gpustack.engines.registry import engine_by_name

from .capability import is_too_old
from .placement import PlacementRequest, Shortage


@attrs.frozen(kw_only=True)
class WorkerCapacity:
    """What one worker can give. ``devices`` are those that may be used, most free memory first.

    ``ram`` is known: the filter ``measured`` rules other workers out.
    """

    worker: Worker
    free: FreeMemory
    devices: tuple[Device, ...]
    unified: bool
    build: EngineBuild | None = None
    """The build of the engine that it would run on there."""
    device_name: str | None = None
    """The name that all devices have that the build drives; ``None`` where they differ, or there are none."""
    stands_for: int = 1
    """Of how many workers that are alike it is the capacity: more of them than a gang can have are not told apart."""

    @property
    def ram(self) -> int:
        return self.free.ram or 0

    def vram(self, device: Device) -> int:
        return self.free.vram.get(device.index, 0)

    def holds(self, ram: int, index: int, vram: int) -> bool:
        """Whether all fits: what ``lacks`` tells for one device, without the words."""
        whole = ram + vram if self.unified else ram
        return vram <= self.free.vram.get(index, 0) and whole <= self.ram

    def lacks(self, ram: int, vram: Mapping[int, int]) -> Shortage | None:
        """The first memory that is too small, or ``None`` when all fits. Bytes; ``vram`` by index of the device."""
        for index, need in vram.items():
            free = self.free.vram.get(index, 0)
            if need > free:
                return Shortage(of="video memory", worker=self.worker, index=index, need=need, free=free)
        whole = ram + (sum(vram.values()) if self.unified else 0)
        if whole > self.ram:
            return Shortage(of="memory", worker=self.worker, need=whole, free=self.ram)
        return None


@attrs.frozen(kw_only=True)
class Drive:
    """What the engine's build drives on a worker: the same on all workers of a shape."""

    build: EngineBuild | None
    positions: tuple[int, ...]
    """Which of the worker's devices may be used, in the order in which it tells them."""
    unified: bool
    device_name: str | None
    """The name that all these have; ``None`` where they differ, or there are none."""

    @classmethod
    def on(cls, request: PlacementRequest, worker: Worker) -> Drive:
        devices, may_use = worker.status.gpu_devices, usable(request, worker)
        may = {device.index for device in may_use}
        names = {device.name for device in may_use}
        return cls(
            device_name=names.pop() if len(names) == 1 else None,
            build=request.build_on(worker),
            positions=tuple(place for place, device in enumerate(devices) if device.index in may),
            unified=worker.status.memory.is_unified_memory
            or any(device.memory.is_unified_memory for device in devices),
        )


def room(
    request: PlacementRequest, worker: Worker, snapshot: Snapshot, drive: Drive | None = None
) -> WorkerCapacity:
    """The capacity of ``worker``; the request's own claim does not count as taken."""
    free = snapshot.free(worker, without=request.own_id)
    drive = drive or Drive.on(request, worker)
    vram, there = free.vram, worker.status.gpu_devices
    devices = [there[place] for place in drive.positions if there[place].index in vram]
    if request.gpu_ids and (picked := picked_on(request, worker)):
        devices = [device for device in devices if device.index in picked]
    devices.sort(key=lambda device: (-vram[device.index], device.index))
    return WorkerCapacity(
        worker=worker,
        free=free,
        devices=tuple(devices),
        unified=drive.unified,
        build=drive.build,
        device_name=drive.device_name,
    )


def usable(request: PlacementRequest, worker: Worker) -> tuple[Device, ...]:
    """The devices without a fault that the engine's build can drive, and that are young enough for the model."""
    need = request.capability
    devices = driven(request, worker)
    return devices if need is None else tuple(device for device in devices if not is_too_old(device, need))


def driven(request: PlacementRequest, worker: Worker) -> tuple[Device, ...]:
    """The devices without a fault that the engine's build on this worker can drive."""
    engine, build = engine_by_name(request.engine_name), request.build_on(worker)
    if build is None:
        return ()
    every = engine is not None and engine.any_device
    return tuple(d for d in sound(worker) if every or d.type in build.drives)


def runs_on_cpu(request: PlacementRequest, worker: Worker) -> bool:
    """Whether the engine's build on this worker runs without devices, as far as that depends on the build."""
    build = request.build_on(worker)
    return build is None or build.on_cpu


def sound(worker: Worker) -> Iterable[Device]:
    """Devices without a fault."""
    return (device for device in worker.status.gpu_devices if device.fault is None)


def picked_on(request: PlacementRequest, worker: Worker) -> frozenset[int]:
    """Indexes of this worker's devices that the user picked."""
    ids = [DeviceId.parse(text) for text in request.gpu_ids]
    return frozenset(device.index for device in ids if device.worker == worker.name)


def undriven(request: PlacementRequest, worker: Worker) -> str:
    """Why GPUs of the worker are not used, and how to have them used; empty if they are, or there are none."""
    build, there = request.build_on(worker), list(sound(worker))
    if build is None or not there or usable(request, worker):
        return ""
    kinds = ", ".join(sorted({device.type for device in there}))
    count = "its GPU" if len(there) == 1 else f"its {len(there)} GPUs"
    name = f"{build.engine} ({build.origin})" if build.origin else build.engine
    advice = f". {build.advice}" if build.advice else "; install a build of it for these devices"
    return f"{name} on worker {worker.name} cannot drive {count} ({kinds}){advice}"

"""Measures the whole machine (host, devices, engine builds), and keeps the latest status."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import attrs
import trio

from gpustack.domain.device import Device, DeviceMemory
from gpustack.domain.worker import EngineBuild, Memory, WorkerStatus
from gpustack.hardware.detection import Detection, DeviceMonitor
from gpustack.hardware.detector import DeviceUse
from gpustack.hardware.engine_build import BuildFinder
from gpustack.hardware.host import HostMonitor
from gpustack.hardware.override import ResourceOverride
from gpustack.nursery.limiter import ThreadLimiter, threads


@attrs.define(eq=False, repr=False)
class HardwareMonitor:
    """Owns the latest status. Hardware that the configuration describes is not measured."""

    _now: Callable[[], datetime]
    _host: HostMonitor
    _devices: DeviceMonitor
    _builds: BuildFinder
    _override: ResourceOverride | None
    _llama_server_path: str | None
    _cann_chip: str | None = None
    _threads: ThreadLimiter = attrs.field(factory=lambda: threads("hardware", 2))
    latest: WorkerStatus = WorkerStatus()
    uses: tuple[DeviceUse, ...] = ()
    """Who holds the memory of which device, as of the last look."""
    _measured: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self) -> WorkerStatus:
        """Measure everything now. Cancellable; takes as long as the slowest detector's deadline at most."""
        now = self._now()
        host = await self._threads.run(self._host.look, now)
        if self._override is not None and self._override.tells_devices:
            detection = Detection()
        else:
            detection = await self._devices.look(now)
        measured, self.uses = compose(host, detection, ()), detection.uses
        if self._override is not None:
            measured = self._override.over(measured)
        search = os.environ.get("PATH", os.defpath)
        engines = await self._builds.find(self._llama_server_path, search, measured.gpu_devices)
        self.latest = attrs.evolve(measured, engines=engines)
        self._measured.set()
        return self.latest

    async def builds(self) -> tuple[EngineBuild, ...]:
        """The engine builds as last measured; waits for the first measurement."""
        await self._measured.wait()
        return self.latest.engines

    def device_memory(self) -> Mapping[int, int]:
        """Bytes that each device has in all, by its index; without those that are unknown."""
        devices = self.latest.gpu_devices
        return {device.index: device.memory.total for device in devices if device.memory.total}

    def cann_chip(self, indexes: Sequence[int]) -> str | None:
        """The line of Ascend chips of the NPUs with these indexes: as told, else as the first one's name says."""
        for device in self.latest.gpu_devices:
            if device.index in indexes and device.type == "npu":
                return self._cann_chip or chip_line(device.name)
        return None

    def gfx(self, indexes: Sequence[int]) -> str | None:
        """The compiler's name of the chip of the first AMD device with these indexes; ``None`` for others."""
        for device in self.latest.gpu_devices:
            if device.index in indexes and device.type == "rocm":
                return device.labels.get("llvm")
        return None

    def device_type(self, indexes: Sequence[int]) -> str | None:
        """The type of the devices with these indexes; ``None`` for none."""
        for device in self.latest.gpu_devices:
            if device.index in indexes:
                return device.type
        return None


_CHIP = re.compile(r"(310p|310b|910a|910b|910c|910_93|910)", re.IGNORECASE)


def chip_line(name: str) -> str | None:
    """The line of Ascend chips in a device's name: ``910B3`` is of ``910b``. ``None`` where it names none."""
    found = _CHIP.search(name)
    return None if found is None else found[1].lower()


def compose(host: WorkerStatus, detection: Detection, engines: Sequence[EngineBuild]) -> WorkerStatus:
    """The whole status. Devices without memory of their own show that of the host, which they share."""
    devices = tuple(_with_memory(device, host.memory) for device in detection.devices)
    unified = host.memory.is_unified_memory or any(device.memory.is_unified_memory for device in devices)
    return attrs.evolve(
        host,
        memory=attrs.evolve(host.memory, is_unified_memory=unified),
        gpu_devices=devices,
        engines=tuple(engines),
        detection_faults=(*host.detection_faults, *detection.faults),
        stale_since=detection.stale_since,
    )


def _with_memory(device: Device, host: Memory) -> Device:
    if not device.memory.is_unified_memory or device.memory.total is not None:
        return device
    shared = DeviceMemory(
        total=host.total, used=host.used, utilization_rate=host.utilization_rate, is_unified_memory=True
    )
    return attrs.evolve(device, memory=shared)

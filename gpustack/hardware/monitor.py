"""Puts the parts of this machine's status together: host, devices, engine builds."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

import attrs
import trio

from gpustack.domain.instance import Placement
from gpustack.domain.worker import EngineBuild, WorkerStatus
from gpustack.hardware.detection import Detection, DeviceMonitor
from gpustack.hardware.engine_build import BuildFinder
from gpustack.hardware.host import HostMonitor
from gpustack.hardware.override import ResourceOverride
from gpustack.hardware.status import compose
from gpustack.nursery.limiter import ThreadLimiter, threads


@attrs.define(eq=False, repr=False)
class HardwareMonitor:
    """Owns the latest status. Hardware described in the configuration is believed instead of being looked at."""

    _now: Callable[[], datetime]
    _host: HostMonitor
    _devices: DeviceMonitor
    _builds: BuildFinder
    _override: ResourceOverride | None
    _llama_server_path: str | None
    _threads: ThreadLimiter = attrs.field(factory=lambda: threads("hardware", 2))
    latest: WorkerStatus = WorkerStatus()
    _looked: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self) -> WorkerStatus:
        """Look at everything now. Cancellable; takes as long as the slowest detector's deadline."""
        now = self._now()
        host = await self._threads.run(self._host.look, now)
        engines = await self._builds.find(self._llama_server_path, os.environ.get("PATH", os.defpath))
        if self._override is not None and self._override.tells_devices:
            detection = Detection()
        else:
            detection = await self._devices.look(now)
        measured = compose(host, detection, engines)
        self.latest = measured if self._override is None else self._override.over(measured)
        self._looked.set()
        return self.latest

    async def builds(self) -> tuple[EngineBuild, ...]:
        """The engine builds as last looked at; waits for the first look."""
        await self._looked.wait()
        return self.latest.engines

    def device_type(self, placement: Placement) -> str | None:
        """The type of the devices placed on; ``None`` on the CPU."""
        for device in self.latest.gpu_devices:
            if device.index in placement.gpu_indexes:
                return device.type
        return None

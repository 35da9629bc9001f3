"""What the ``resources`` block of the configuration says this machine has, used instead of measuring it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from gpustack.config import resource_block as config
from gpustack.domain.device import Device, DeviceMemory, DeviceNetwork
from gpustack.domain.worker import (
    Cpu,
    Filesystem,
    Kernel,
    Memory,
    OperatingSystem,
    Uptime,
    WorkerStatus,
)


@attrs.frozen(kw_only=True)
class ResourceOverride:
    """A status, and the names of those of its parts that the configuration sets. The other parts are measured."""

    status: WorkerStatus
    parts: frozenset[str]

    def over(self, measured: WorkerStatus) -> WorkerStatus:
        """``measured`` with the parts replaced that the configuration sets."""
        return attrs.evolve(measured, **{name: getattr(self.status, name) for name in self.parts})

    @property
    def tells_devices(self) -> bool:
        """Whether devices are set: then none are looked for, and their load is unknown."""
        return "gpu_devices" in self.parts


def override_of(resources: config.ResourceBlock) -> ResourceOverride:
    """The configuration's block as parts of a worker's status."""
    parts: dict[str, Any] = {}
    if resources.cpu is not None:
        parts["cpu"] = Cpu(total=float(resources.cpu.total))
    if resources.memory is not None:
        memory = resources.memory
        parts["memory"] = Memory(total=memory.total, is_unified_memory=memory.is_unified_memory)
    if resources.swap is not None:
        parts["swap"] = Memory(total=resources.swap.total)
    if resources.filesystem is not None:
        parts["filesystem"] = tuple(Filesystem(**_fields(mount)) for mount in resources.filesystem)
    if resources.os is not None:
        parts["os"] = OperatingSystem(**_fields(resources.os))
    if resources.kernel is not None:
        parts["kernel"] = Kernel(**_fields(resources.kernel))
    if resources.uptime is not None:
        boot = _instant(resources.uptime.boot_time)
        parts["uptime"] = Uptime(uptime=resources.uptime.uptime, boot_time=boot)
    if resources.gpu_devices is not None:
        parts["gpu_devices"] = tuple(_device(device) for device in resources.gpu_devices)
    return ResourceOverride(status=attrs.evolve(WorkerStatus(), **parts), parts=frozenset(parts))


def _device(device: config.DeviceOverride) -> Device:
    return Device(
        index=device.index,
        name=device.name,
        vendor=device.vendor,
        type=device.type,
        device_index=device.device_index,
        device_chip_index=device.device_chip_index,
        memory=DeviceMemory(total=device.memory.total, is_unified_memory=device.memory.is_unified_memory),
        network=None if device.network is None else _network(device.network),
    )


def _network(network: config.DeviceNetworkOverride) -> DeviceNetwork:
    """The network of a device; fields left empty are unknown."""
    known: dict[str, Any] = {name: value or None for name, value in _fields(network).items()}
    return DeviceNetwork(**known)


def _instant(text: str) -> datetime | None:
    """UTC unless it has an offset. The configuration has checked that it is an instant."""
    if not text:
        return None
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _fields(value: attrs.AttrsInstance) -> Mapping[str, Any]:
    return attrs.asdict(value, recurse=False)

"""Puts together what a worker says of itself: host, accelerators, engines."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from gpustack.domain.device import Device, DeviceMemory
from gpustack.domain.worker import EngineBuild, Memory, WorkerStatus
from gpustack.hardware.detection import Detection


def compose(host: WorkerStatus, detection: Detection, engines: Sequence[EngineBuild]) -> WorkerStatus:
    """The whole status. Devices without memory of their own get that of the host they share it with."""
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

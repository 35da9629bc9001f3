"""The load of a worker: what it measures anew all the time, apart from what the machine is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import attrs

from .device import Device
from .unit import GIB
from .worker import Filesystem, WorkerStatus

_FREE_STEP = 1 * GIB
_FREE_SHARE = 0.02
"""Free space of a file system is recorded anew once it differs by more than both: bytes, and this part of it."""


@attrs.frozen(kw_only=True)
class MemoryLoad:
    """Bytes and percent."""

    used: int | None = None
    utilization_rate: float | None = None


@attrs.frozen(kw_only=True)
class DiskLoad:
    """Bytes of one file system."""

    used: int | None = None
    free: int | None = None
    available: int | None = None


@attrs.frozen(kw_only=True)
class DeviceLoad:
    """Of one device: degrees Celsius, percent of its cores, bytes and percent of its memory."""

    temperature: float | None = None
    core: float | None = None
    memory: MemoryLoad = MemoryLoad()


@attrs.frozen(kw_only=True)
class WorkerLoad:
    """Everything in a ``WorkerStatus`` that changes without the machine having changed; ``None``: not measured.

    ``filesystem`` and ``gpu_devices`` are in the order of the status.
    """

    cpu: float | None = None
    memory: MemoryLoad = MemoryLoad()
    swap: MemoryLoad = MemoryLoad()
    filesystem: tuple[DiskLoad, ...] = ()
    uptime: float | None = None
    boot_time: datetime | None = None
    gpu_devices: tuple[DeviceLoad, ...] = ()


UNKNOWN_LOAD = WorkerLoad()


def load_of(status: WorkerStatus) -> WorkerLoad:
    """What changes all the time, out of a status."""
    return WorkerLoad(
        cpu=status.cpu.utilization_rate,
        memory=MemoryLoad(used=status.memory.used, utilization_rate=status.memory.utilization_rate),
        swap=MemoryLoad(used=status.swap.used, utilization_rate=status.swap.utilization_rate),
        filesystem=disk_loads(status),
        uptime=status.uptime.uptime,
        boot_time=status.uptime.boot_time,
        gpu_devices=tuple(map(_device_load, status.gpu_devices)),
    )


def disk_loads(status: WorkerStatus) -> tuple[DiskLoad, ...]:
    """The figures of the file systems of a status."""
    return tuple(map(_disk_load, status.filesystem))


def _disk_load(disk: Filesystem) -> DiskLoad:
    return DiskLoad(used=disk.used, free=disk.free, available=disk.available)


def _device_load(device: Device) -> DeviceLoad:
    memory = device.memory
    return DeviceLoad(
        temperature=device.temperature,
        core=None if device.core is None else device.core.utilization_rate,
        memory=MemoryLoad(used=memory.used, utilization_rate=memory.utilization_rate),
    )


def steady_part(status: WorkerStatus) -> WorkerStatus:
    """The status without its load."""
    return attrs.evolve(
        status,
        cpu=attrs.evolve(status.cpu, utilization_rate=None),
        memory=attrs.evolve(status.memory, used=None, utilization_rate=None),
        swap=attrs.evolve(status.swap, used=None, utilization_rate=None),
        filesystem=tuple(attrs.evolve(f, used=None, free=None, available=None) for f in status.filesystem),
        uptime=attrs.evolve(status.uptime, uptime=None, boot_time=None),
        gpu_devices=tuple(map(_steady_device, status.gpu_devices)),
    )


def _steady_device(device: Device) -> Device:
    return attrs.evolve(
        device,
        temperature=None,
        core=None if device.core is None else attrs.evolve(device.core, utilization_rate=None),
        memory=attrs.evolve(device.memory, used=None, utilization_rate=None),
    )


def status_to_record(reported: WorkerStatus, recorded: WorkerStatus) -> WorkerStatus:
    """What the record of a worker should have of a status: its steady part, and the figures of its file systems.

    Placement asks for free disk, so that the record has it; but figures that are near to those in the record change
    nothing. Where everything is as ``recorded``, that very object is returned.
    """
    disks = reported.filesystem
    if is_near(disk_loads(recorded), disk_loads(reported)):
        disks = recorded.filesystem if _names(recorded) == _names(reported) else disks
    made = attrs.evolve(steady_part(reported), filesystem=disks)
    return recorded if made == recorded else made


def is_near(recorded: Sequence[DiskLoad], measured: Sequence[DiskLoad]) -> bool:
    """Whether figures of file systems, in the same order, say the same to somebody who looks for room."""
    return len(recorded) == len(measured) and all(map(_is_near, recorded, measured))


def _is_near(recorded: DiskLoad, measured: DiskLoad) -> bool:
    pairs = ((recorded.free, measured.free), (recorded.available, measured.available))
    return all(_is_near_size(was, now) for was, now in pairs)


def _is_near_size(was: int | None, now: int | None) -> bool:
    if was is None or now is None:
        return was is now
    return abs(was - now) <= max(_FREE_STEP, _FREE_SHARE * was)


def _names(status: WorkerStatus) -> list[Filesystem]:
    return [attrs.evolve(disk, used=None, free=None, available=None) for disk in status.filesystem]

"""The load is all of a status that changes by itself; the rest is the machine."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from gpustack.domain.device import Device, DeviceCore, DeviceMemory
from gpustack.domain.load import (
    DeviceLoad,
    DiskLoad,
    MemoryLoad,
    disk_loads,
    is_near,
    load_of,
    status_to_record,
    steady_part,
)
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Cpu, Filesystem, Memory, Uptime, WorkerStatus

DISK = Filesystem(
    name="root", mount_point="/", total=1000 * GIB, used=900 * GIB, free=100 * GIB, available=90 * GIB
)
CARD = Device(
    index=0,
    name="H200",
    vendor="NVIDIA",
    type="cuda",
    temperature=41.0,
    core=DeviceCore(total=132, utilization_rate=3.0),
    memory=DeviceMemory(total=141 * GIB, used=GIB, utilization_rate=0.7),
)
STATUS = WorkerStatus(
    cpu=Cpu(total=8, utilization_rate=12.5),
    memory=Memory(total=64 * GIB, used=GIB, utilization_rate=1.5),
    swap=Memory(total=GIB, used=7, utilization_rate=0.1),
    filesystem=(DISK,),
    uptime=Uptime(uptime=9.0, boot_time=datetime(2026, 1, 1, tzinfo=UTC)),
    gpu_devices=(CARD, attrs.evolve(CARD, index=1, core=None)),
)


def other_load(status: WorkerStatus) -> WorkerStatus:
    """The same machine at another time."""
    return attrs.evolve(
        status,
        cpu=attrs.evolve(status.cpu, utilization_rate=90.0),
        memory=attrs.evolve(status.memory, used=2 * GIB, utilization_rate=3.0),
        swap=attrs.evolve(status.swap, used=None, utilization_rate=None),
        uptime=Uptime(uptime=10.0, boot_time=datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)),
        filesystem=(attrs.evolve(DISK, used=901 * GIB, free=99 * GIB, available=89 * GIB),),
        gpu_devices=tuple(
            attrs.evolve(
                device,
                temperature=80.0,
                core=None if device.core is None else attrs.evolve(device.core, utilization_rate=100.0),
                memory=attrs.evolve(device.memory, used=140 * GIB, utilization_rate=99.0),
            )
            for device in status.gpu_devices
        ),
    )


def test_the_load_has_every_figure_that_the_steady_part_lacks() -> None:
    load = load_of(STATUS)
    assert (load.cpu, load.memory, load.uptime) == (12.5, MemoryLoad(used=GIB, utilization_rate=1.5), 9.0)
    assert load.filesystem == (DiskLoad(used=900 * GIB, free=100 * GIB, available=90 * GIB),)
    first, second = load.gpu_devices
    assert first == DeviceLoad(temperature=41.0, core=3.0, memory=MemoryLoad(used=GIB, utilization_rate=0.7))
    assert second.core is None
    assert load_of(steady_part(STATUS)).gpu_devices == (DeviceLoad(), DeviceLoad())


def test_a_machine_under_another_load_is_the_same_machine() -> None:
    assert steady_part(other_load(STATUS)) == steady_part(STATUS)
    record = status_to_record(STATUS, WorkerStatus())
    assert record.filesystem == (DISK,), "placement asks for free disk"
    assert status_to_record(other_load(STATUS), record) is record


@pytest.mark.parametrize(
    "change",
    [
        {"detection_faults": ("no driver",)},
        {"gpu_devices": (CARD,)},
        {"gpu_devices": (attrs.evolve(CARD, fault="it fell off the bus"), STATUS.gpu_devices[1])},
        {"memory": attrs.evolve(STATUS.memory, total=32 * GIB)},
        {"filesystem": (attrs.evolve(DISK, mount_point="/data"),)},
        {"filesystem": (attrs.evolve(DISK, free=None, available=None),)},
        {"filesystem": (attrs.evolve(DISK, available=87 * GIB),)},
    ],
)
def test_a_machine_that_changed_is_recorded_anew(change: dict[str, object]) -> None:
    record = status_to_record(STATUS, WorkerStatus())
    after = attrs.evolve(STATUS, **change)  # type: ignore[arg-type]  # of several types
    assert status_to_record(after, record) == status_to_record(after, WorkerStatus()) != record


@pytest.mark.parametrize(
    ("was", "now", "near"),
    [
        (5 * GIB, 4 * GIB, True),
        (5 * GIB, 4 * GIB - 1, False),
        (1000 * GIB, 981 * GIB, True),
        (1000 * GIB, 979 * GIB, False),
        (None, None, True),
        (None, 5 * GIB, False),
    ],
)
def test_free_space_matters_in_steps(was: int | None, now: int | None, near: bool) -> None:
    before, after = attrs.evolve(DISK, free=was), attrs.evolve(DISK, free=now, used=1)
    pair = [disk_loads(WorkerStatus(filesystem=(disk,))) for disk in (before, after)]
    assert is_near(*pair) is near

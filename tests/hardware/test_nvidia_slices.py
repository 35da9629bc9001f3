"""MIG instances are devices of their own; a card that is divided is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpustack.hardware.detection import DeviceMonitor
from tests.child import environment
from tests.fakes.nvml import FakeNvml, cards, instances
from tests.hardware.machine import NOW, plug


@pytest.fixture
def monitor(nvml: FakeNvml, tmp_path: Path) -> DeviceMonitor:
    return DeviceMonitor(root=plug(tmp_path), env=environment(**nvml.env), deadline=20.0)


async def test_each_instance_is_a_device_with_its_own_uuid_and_memory(
    monitor: DeviceMonitor, nvml: FakeNvml
) -> None:
    whole, divided = cards(2, path="0.0.0.0")
    busy, idle = instances(1, 0, 4)
    nvml.tell([whole, {**divided, "mig": 1, "total": "!4"}, {**busy, "processes": "17:1024"}, idle])
    found = await monitor.look(NOW)
    assert [(use.index, dict(use.by_process)) for use in found.uses] == [
        (0, {}),
        (200, {17: 1024}),
        (204, {}),
    ]
    assert found.faults == ()
    assert [(one.index, one.slice_profile) for one in found.devices] == [
        (0, None),
        (200, "1g.18gb"),
        (204, "1g.18gb"),
    ]
    last = found.devices[2]
    assert (last.device_index, last.device_chip_index, last.uuid) == (
        1,
        4,
        "MIG-00000000-0000-0000-0000-000001000004",
    )
    assert (last.memory.total, last.memory.used) == (16384 * 2**20, 12 * 2**20)
    assert (last.compute_capability, last.temperature, last.driver_version) == ("9.0", 30.0, "570.124.06")
    assert (last.fault, last.links, last.memory.is_unified_memory) == (None, (), False)


async def test_a_card_that_is_divided_into_nothing_says_what_to_do(
    monitor: DeviceMonitor, nvml: FakeNvml
) -> None:
    nvml.tell(cards(1, mig=1))
    (device,) = (await monitor.look(NOW)).devices
    assert device.fault is not None and "nvidia-smi mig -cgi" in device.fault
    assert device.index == 0


async def test_a_field_that_an_instance_may_not_tell_costs_that_field(
    monitor: DeviceMonitor, nvml: FakeNvml
) -> None:
    (part,) = instances(0, 3)
    nvml.tell([*cards(1, mig=1), {**part, "total": "!4", "name": "!4"}])
    (device,) = (await monitor.look(NOW)).devices
    assert (device.index, device.name, device.slice_profile) == (103, "NVIDIA H200 MIG", "unknown")
    assert (device.memory.total, device.memory.is_unified_memory, device.fault) == (None, False, None)


async def test_a_card_that_this_user_may_not_open_is_shown_and_hides_no_other(
    monitor: DeviceMonitor, nvml: FakeNvml
) -> None:
    locked, well = cards(2)
    nvml.tell([{**locked, "state": "locked"}, well])
    found = await monitor.look(NOW)
    assert [(one.index, one.fault is None) for one in found.devices] == [(0, False), (1, True)]
    assert found.faults == ("NVIDIA GPU 0 cannot be used: Insufficient Permissions",)

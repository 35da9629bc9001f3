"""The status of this machine, put together."""

from __future__ import annotations

import time

import trio
import trio.testing

from gpustack.domain.device import Device
from gpustack.domain.worker import WorkerStatus
from gpustack.hardware.detection import DeviceMonitor
from gpustack.hardware.engine_build import BuildFinder
from gpustack.hardware.host import HostMonitor
from gpustack.hardware.monitor import HardwareMonitor
from gpustack.hardware.override import ResourceOverride
from tests.worker.daemon import utc_now

TOLD = ResourceOverride(
    status=WorkerStatus(gpu_devices=(Device(index=3, vendor="NVIDIA", type="cuda", name="told"),)),
    parts=frozenset({"gpu_devices"}),
)


def measure(override: ResourceOverride | None) -> HardwareMonitor:
    return HardwareMonitor(
        utc_now,
        HostMonitor(time.monotonic),
        DeviceMonitor(detectors=lambda: ()),
        BuildFinder(),
        override,
        None,
    )


async def test_a_look_finds_the_host_and_its_engines_and_believes_what_was_told() -> None:
    one = measure(TOLD)
    with trio.fail_after(60):
        status = await one()
    assert status.memory.total and status.cpu.total
    assert {build.engine for build in status.engines} >= {"custom"}
    assert [device.name for device in status.gpu_devices] == ["told"]
    assert status is one.latest
    assert one.device_type((3,)) == "cuda"
    assert one.device_type(()) is None


async def test_whoever_asks_for_engines_waits_for_the_first_look() -> None:
    one, found = measure(None), []

    async def ask() -> None:
        found.append(await one.builds())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert not found
            await one()
    assert found == [one.latest.engines] != [()]

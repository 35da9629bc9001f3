"""The ``resources`` block replaces measuring, part by part."""

from __future__ import annotations

from typing import Any

import attrs
import yaml

from gpustack.config.resource_block import read_resources
from gpustack.domain.worker import Cpu, Filesystem, Memory, WorkerStatus
from gpustack.hardware.override import ResourceOverride, override_of

WHOLE = yaml.safe_load("""
cpu: {total: 8}
memory: {total: 68719476736, is_unified_memory: true}
swap: {total: 0}
filesystem:
  - {name: root, mount_point: /, mount_from: /dev/sda1, total: 1000}
os: {name: Debian, version: "12"}
kernel: {name: Linux, release: "6.1", version: "#1", architecture: x86_64}
uptime: {uptime: 3600, boot_time: 2025-01-31T12:00:00Z}
gpu_devices:
  - name: Ascend 910B
    vendor: Huawei
    index: 0
    device_chip_index: 1
    memory: {total: 65536}
    network: {inet: 10.0.0.1, netmask: 255.255.255.0, mtu: 1500}
  - {name: other, vendor: NVIDIA, index: 1, device_index: 7, type: musa, memory: {total: 1}}
""")


def override(block: Any) -> ResourceOverride:
    return override_of(read_resources(block))


def test_a_whole_block_is_a_whole_status() -> None:
    told = override(WHOLE)
    status = told.status
    assert status.cpu == Cpu(total=8.0)
    assert status.memory == Memory(total=64 * 2**30, is_unified_memory=True)
    assert status.swap == Memory(total=0)
    assert status.filesystem == (
        Filesystem(name="root", mount_point="/", mount_from="/dev/sda1", total=1000),
    )
    assert (status.os.version, status.kernel.release, status.uptime.uptime) == ("12", "6.1", 3600.0)
    assert status.uptime.boot_time is not None
    assert status.uptime.boot_time.isoformat() == "2025-01-31T12:00:00+00:00"
    first, second = status.gpu_devices
    assert (first.vendor, first.type, first.device_index, first.device_chip_index) == ("Huawei", "npu", 0, 1)
    assert (first.memory.total, first.memory.used) == (65536, None)
    assert first.network is not None
    assert (first.network.status, first.network.inet, first.network.mtu) == ("up", "10.0.0.1", 1500)
    assert first.network.gateway is None
    assert (second.vendor, second.type, second.device_index, second.network) == ("NVIDIA", "musa", 7, None)
    assert told.tells_devices


def test_every_part_that_can_be_told_is_taken() -> None:
    parts = {field.name for field in attrs.fields(type(read_resources({})))}
    assert override(WHOLE).parts == parts


def test_what_is_not_told_is_still_measured() -> None:
    told = override({"memory": {"total": 5}})
    measured = WorkerStatus(cpu=Cpu(total=2.0), memory=Memory(total=9, used=1))
    assert told.over(measured) == WorkerStatus(cpu=Cpu(total=2.0), memory=Memory(total=5))
    assert not told.tells_devices


def test_an_empty_list_of_devices_says_that_there_are_none() -> None:
    told = override({"gpu_devices": []})
    assert told.tells_devices
    assert told.status.gpu_devices == ()


def test_a_time_without_a_zone_is_utc() -> None:
    boot = override({"uptime": {"uptime": 1, "boot_time": "2025-01-31T12:00:00"}}).status.uptime.boot_time
    assert boot is not None
    assert boot.isoformat() == "2025-01-31T12:00:00+00:00"
    assert override({"uptime": {"uptime": 1}}).status.uptime.boot_time is None

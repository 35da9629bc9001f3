"""The ``resources`` block replaces measuring, and every fault in it is named at once."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.device import DeviceMemory
from gpustack.domain.worker import Cpu, Memory, WorkerStatus
from gpustack.errors import Invalid
from gpustack.hardware.override import read_override

WHOLE = yaml.safe_load("""
cpu: {total: 8}
memory: {total: 68719476736, is_unified_memory: true}
swap: {total: 0}
filesystem:
  - {name: root, mount_point: /, mount_from: /dev/sda1, total: 1000}
os: {name: Debian, version: 12}
kernel: {name: Linux, release: "6.1", version: "#1", architecture: x86_64}
uptime: {uptime: 3600, boot_time: 2025-01-31T12:00:00Z}
gpu_devices:
  - name: Ascend 910B
    vendor: Huawei
    index: 0
    device_chip_index: 1
    memory: {total: 65536}
    network: {inet: 10.0.0.1, netmask: 255.255.255.0, mtu: 1500}
  - {name: other, vendor: nvidia, index: 1, device_index: 7, type: musa, memory: {total: 1}}
""")


def faults(block: object) -> tuple[str, ...]:
    with pytest.raises(Invalid) as caught:
        read_override(block)
    return caught.value.faults


def test_a_whole_block_is_a_whole_status() -> None:
    told = read_override(WHOLE)
    status = told.status
    assert status.cpu == Cpu(total=8.0)
    assert status.memory == Memory(total=64 * 2**30, is_unified_memory=True)
    assert status.os.version == "12"
    assert status.uptime.boot_time is not None and status.uptime.boot_time.tzinfo is not None
    first, second = status.gpu_devices
    assert (first.vendor, first.type, first.device_index, first.device_chip_index) == ("Huawei", "npu", 0, 1)
    assert first.network is not None
    assert (first.network.status, first.network.inet, first.network.mtu) == ("up", "10.0.0.1", 1500)
    assert (second.vendor, second.type, second.device_index) == ("NVIDIA", "musa", 7)
    assert told.tells_devices


def test_what_is_not_told_is_still_measured() -> None:
    told = read_override({"memory": {"total": 5}})
    measured = WorkerStatus(cpu=Cpu(total=2.0), memory=Memory(total=9, used=1))
    assert told.over(measured) == WorkerStatus(cpu=Cpu(total=2.0), memory=Memory(total=5))
    assert not told.tells_devices


def test_an_empty_list_of_devices_says_that_there_are_none() -> None:
    assert read_override({"gpu_devices": []}).tells_devices


def test_every_fault_is_named_with_its_key() -> None:
    found = faults(
        {
            "cpu": {"total": "8"},
            "memory": {"total": -1},
            "filesystem": {"name": "x"},
            "gpus": [],
            "gpu_devices": [
                {"name": "a", "vendor": "Voodoo", "index": 0, "memory": {"total": 1}},
                {"vendor": "AMD", "index": 0, "memory": {}, "network": {"inet": "here"}},
                {"name": "c", "vendor": "AMD", "index": 2, "colour": "red"},
            ],
        }
    )
    assert found == (
        "resources.cpu.total must be a number above zero, not '8'",
        "resources.memory.total must be a whole number, zero or more, not -1",
        "resources.filesystem must be a list",
        "resources.gpu_devices[0].vendor must be one of NVIDIA, Moore Threads, Apple, Huawei, AMD, Hygon, "
        "Iluvatar, Cambricon, Intel, not 'Voodoo'",
        "resources.gpu_devices[1].name is required",
        "resources.gpu_devices[1].memory.total is required",
        "resources.gpu_devices[1].network.inet must be an IP address, not 'here'",
        "resources.gpu_devices[2].memory is required, with its total in bytes",
        "resources.gpu_devices[2].colour is not known (there are device_chip_index, device_index, index, memory, "
        "name, network, type, vendor)",
        "resources.gpus is not known (there are cpu, filesystem, gpu_devices, kernel, memory, os, swap, uptime)",
        "resources.gpu_devices[1].index is 0, as that of gpu_devices[0]: give every device an index of its own",
    )


@pytest.mark.parametrize("block", [None, [], "cpu", 3])
def test_the_block_itself_must_be_a_mapping(block: object) -> None:
    assert faults(block) == ("resources must be a mapping of keys to values",)


def test_a_true_total_is_not_the_number_one() -> None:
    assert faults({"memory": {"total": True}})
    assert read_override({"memory": {"total": 1}}).status.memory.total == 1


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_blocks: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "cpu",
                    "memory",
                    "total",
                    "gpu_devices",
                    "index",
                    "name",
                    "vendor",
                    "network",
                    "uptime",
                    "boot_time",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(_blocks)
def test_any_block_is_read_or_refused_by_name(block: object) -> None:
    try:
        told = read_override(block)
    except Invalid as error:
        assert error.faults and all(fault.startswith("resources") for fault in error.faults)
    else:
        assert isinstance(told.status, WorkerStatus)
        assert all(isinstance(device.memory, DeviceMemory) for device in told.status.gpu_devices)

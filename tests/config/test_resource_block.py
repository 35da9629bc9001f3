from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpustack.config.resource_block import ResourceBlock, ResourcesError, read_resources
from tests.config.loading import faults, loaded

DEVICE = {"name": "H200", "vendor": "NVIDIA", "index": 1, "memory": {"total": 5}}


def test_a_device_derives_its_type_and_index_and_its_network_is_up() -> None:
    network = {"inet": "10.0.0.1"}
    found = read_resources({"gpu_devices": [DEVICE | {"network": network, "vendor": "Huawei"}]})
    assert found.gpu_devices is not None
    device = found.gpu_devices[0]
    assert (device.type, device.device_index, device.device_chip_index) == ("npu", 1, 0)
    assert device.network is not None
    assert device.network.status == "up"
    assert not device.memory.is_unified_memory


def test_a_part_left_out_is_unknown_and_no_devices_are_none() -> None:
    found = read_resources({"cpu": {"total": 4}, "gpu_devices": []})
    assert (found.memory, found.gpu_devices) == (None, ())
    assert read_resources({}) == ResourceBlock()


def test_every_part_of_the_block_is_read_and_written_the_same() -> None:
    found = read_resources(
        {
            "cpu": {"total": 16},
            "memory": {"total": 64, "is_unified_memory": "false"},
            "swap": {"total": 0},
            "filesystem": [{"name": "d", "mount_point": "/", "mount_from": "", "total": 9}],
            "os": {"name": "Debian", "version": "12"},
            "kernel": {"name": "Linux", "release": "6.1", "version": "1", "architecture": "x86_64"},
            "uptime": {"uptime": 3.5, "boot_time": "2025-01-01T00:00:00Z"},
            "gpu_devices": [DEVICE, DEVICE | {"index": 2, "type": "rocm", "device_index": 0}],
        }
    )
    assert read_resources(str(found)) == found


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ([], ["must be a mapping (a JSON object)"]),
        ({"gpus": []}, ["gpus is not known"]),
        ({"cpu": {}}, ["cpu.total is missing"]),
        ({"cpu": {"total": -1}}, ["cpu.total must not be negative"]),
        ({"cpu": 4}, ["cpu must be a mapping"]),
        ({"gpu_devices": {}}, ["gpu_devices must be a list"]),
        (
            {"gpu_devices": [{"vendor": "Matrox", "index": "a"}]},
            [
                "gpu_devices[0].name is missing",
                "gpu_devices[0].vendor must be one of NVIDIA, Moore Threads, Apple, Huawei, AMD, Hygon, "
                "Iluvatar, Cambricon, Intel, MetaX, T-Head, not 'Matrox'",
                "gpu_devices[0].index must be a whole number, not 'a'",
                "gpu_devices[0].memory is missing",
            ],
        ),
        ({"gpu_devices": [DEVICE | {"type": "gpu"}]}, ["gpu_devices[0].type must be one of"]),
        ({"gpu_devices": [DEVICE | {"network": {}}]}, ["gpu_devices[0].network.inet is missing"]),
        (
            {"gpu_devices": [DEVICE | {"network": {"inet": "x", "status": "so"}}]},
            [
                "gpu_devices[0].network.status must be one of up, down, not 'so'",
                "gpu_devices[0].network.inet must be an IP address, not 'x'",
            ],
        ),
        ({"gpu_devices": [DEVICE, DEVICE]}, ["gpu_devices[1] has the index 1 of another device"]),
        ({"uptime": {"uptime": 1, "boot_time": "noon"}}, ["uptime.boot_time must be a time such as"]),
    ],
)
def test_everything_wrong_in_the_block_is_told_with_its_path(block: Any, told: list[str]) -> None:
    with pytest.raises(ResourcesError) as error:
        read_resources(block)
    assert len(error.value.faults) == len(told)
    for found, expected in zip(error.value.faults, told, strict=True):
        assert found.startswith(expected)


def test_the_block_is_read_from_the_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "resources:\n  uptime: {uptime: 5, boot_time: 2025-01-01T00:00:00Z}\n"
        "  gpu_devices:\n    - {name: X, vendor: AMD, index: 0, memory: {total: 1}}\n"
    )
    resources = loaded("--config-file=c.yaml", cwd=tmp_path).options.resources
    assert resources is not None
    assert resources.gpu_devices is not None
    assert resources.gpu_devices[0].type == "rocm"
    (tmp_path / "c.yaml").write_text("port: 81\nresources: {cpu: {total: x}, swap: {}}\n")
    assert faults("--config-file=c.yaml", cwd=tmp_path) == [
        "c.yaml line 2: resources cpu.total must be a whole number, not 'x'",
        "c.yaml line 2: resources swap.total is missing",
    ]

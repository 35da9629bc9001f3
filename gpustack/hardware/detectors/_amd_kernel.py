"""AMD devices as the kernel's compute driver (KFD) lists them, for machines without AMD's tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gpustack.hardware.figures import celsius, cores, memory, percent, text, whole
from gpustack.hardware.probe import DeviceProbe

_NODES = "/sys/class/kfd/kfd/topology/nodes"
_LEAST = 2 << 30
"""Bytes. Less of their own have graphics within processors, for which nobody has installed AMD's tools."""


def kernel_devices(probe: DeviceProbe) -> Iterator[Mapping[str, Any]]:
    """The fields of each device, in the order in which ROCm counts them."""
    number = 0
    for node in sorted(probe.names(_NODES), key=lambda name: (len(name), name)):
        told = _properties(probe, f"{_NODES}/{node}/properties")
        version = told.get("gfx_target_version", 0)
        if not version:
            # a processor, or a node that this control group may not see
            continue
        yield {**_device(probe, told, version), "index": number}
        number += 1


def is_within_processor(fields: Mapping[str, Any]) -> bool:
    """Whether a device has next to no memory of its own."""
    total = fields["memory"].total
    return total is not None and total < _LEAST


def kernel_ids(probe: DeviceProbe) -> Mapping[str, int]:
    """The kernel's own number of each device, by its uuid."""
    found: dict[str, int] = {}
    for node in probe.names(_NODES):
        unique = _properties(probe, f"{_NODES}/{node}/properties").get("unique_id", 0)
        number = whole(probe.read(f"{_NODES}/{node}/gpu_id"))
        if unique and number:
            found[f"GPU-{unique:016x}"] = number
    return found


def _properties(probe: DeviceProbe, path: str) -> Mapping[str, int]:
    lines = (line.split() for line in (probe.read(path) or "").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}


def _device(probe: DeviceProbe, told: Mapping[str, int], version: int) -> Mapping[str, Any]:
    place = told.get("location_id", 0)
    address = f"{told.get('domain', 0):04x}:{place >> 8 & 0xFF:02x}:{place >> 3 & 0x1F:02x}.{place & 7:x}"
    folder = f"/sys/bus/pci/devices/{address}"
    gfx = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
    unique = told.get("unique_id", 0)
    simds = told.get("simd_count", 0) // max(1, told.get("simd_per_cu", 1))
    return {
        "name": text(probe.read(f"{folder}/product_name")) or f"AMD {gfx}",
        "uuid": f"GPU-{unique:016x}" if unique else None,
        "core": cores(simds, percent(probe.read(f"{folder}/gpu_busy_percent"))),
        "memory": memory(
            whole(probe.read(f"{folder}/mem_info_vram_total")),
            whole(probe.read(f"{folder}/mem_info_vram_used")),
        ),
        "temperature": _temperature(probe, folder),
        "labels": {"llvm": gfx},
    }


def _temperature(probe: DeviceProbe, folder: str) -> float | None:
    """In thousandths of a degree."""
    for sensor in probe.names(f"{folder}/hwmon"):
        told = whole(probe.read(f"{folder}/hwmon/{sensor}/temp1_input"))
        if told is not None:
            return celsius(told / 1000)
    return None

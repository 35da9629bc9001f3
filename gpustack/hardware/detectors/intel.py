"""Intel cards, by xpu-smi, else by what the kernel's drivers tell in /sys. Graphics within processors have no memory of
their own; without xpu-smi they are left out."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from gpustack.domain.device import DEVICE_TYPES, Device, DeviceMemory
from gpustack.hardware.detector import Detector, DetectorReport, with_faults
from gpustack.hardware.figures import celsius, cores, entry, json_in, memory, percent, size, text, whole
from gpustack.hardware.probe import DeviceProbe, ToolAnswer

VENDOR = "Intel"
_device = functools.partial(Device, vendor=VENDOR, type=DEVICE_TYPES[VENDOR.lower()])
_MOST_CARDS = 64
_DRM = "/sys/class/drm"


def look(probe: DeviceProbe) -> DetectorReport:
    """A list of cards, then two questions about each."""
    answer = probe.run("xpu-smi", "discovery", "-j")
    listed = entry(json_in(answer.out), "device_list")
    devices = [_by_tool(probe, one) for one in (listed if isinstance(listed, list) else ())[:_MOST_CARDS]]
    if devices:
        return with_faults(VENDOR, devices, {"xpu-smi": answer})
    return _told(list(_by_kernel(probe)), answer)


def _told(devices: list[Device], answer: ToolAnswer) -> DetectorReport:
    """No card at all is as it should be on a machine with Intel's processor only."""
    if answer.is_installed and answer.fault:
        return with_faults(VENDOR, devices, {"xpu-smi": answer})
    return DetectorReport(devices=tuple(devices))


def _by_tool(probe: DeviceProbe, listed: Any) -> Device:
    number = whole(entry(listed, "device_id")) or 0
    known = json_in(probe.run("xpu-smi", "discovery", "-d", str(number), "-j").out)
    levels = entry(json_in(probe.run("xpu-smi", "stats", "-d", str(number), "-j").out), "device_level")
    figures = {
        str(entry(level, "metrics_type")): entry(level, "value")
        for level in (levels if isinstance(levels, list) else ())
    }
    total = size(entry(known, "memory_physical_size_byte"), "B")
    return _device(
        index=number,
        name=text(entry(listed, "device_name")) or VENDOR,
        uuid=text(entry(listed, "uuid")),
        core=cores(None, percent(figures.get("XPUM_STATS_GPU_UTILIZATION"))),
        memory=memory(total, size(figures.get("XPUM_STATS_MEMORY_USED"), "MiB")),
        temperature=celsius(figures.get("XPUM_STATS_GPU_CORE_TEMPERATURE")),
        driver_version=text(entry(known, "driver_version")),
    )


def _by_kernel(probe: DeviceProbe) -> Iterator[Device]:
    number = 0
    for card in sorted(probe.names(_DRM), key=lambda name: (len(name), name)):
        folder = f"{_DRM}/{card}"
        if not re.fullmatch(r"card\d+", card) or probe.read(f"{folder}/device/vendor") != "0x8086":
            continue
        found = _kernel_memory(probe, folder)
        if found.total is not None:
            model = text(probe.read(f"{folder}/device/device"))
            yield _device(
                index=number, name="Intel GPU" if model is None else f"Intel GPU [{model}]", memory=found
            )
            number += 1


def _kernel_memory(probe: DeviceProbe, folder: str) -> DeviceMemory:
    """Of the drivers xe, one file for each tile, and i915."""
    tiles = [name for name in probe.names(f"{folder}/device") if re.fullmatch(r"tile\d+", name)]
    sizes = [size(probe.read(f"{folder}/device/{tile}/physical_vram_size_bytes"), "B") or 0 for tile in tiles]
    if sum(sizes):
        return memory(sum(sizes), None)
    total, free = (size(probe.read(f"{folder}/lmem_{name}_bytes"), "B") for name in ("total", "avail"))
    return memory(total, None if total is None or free is None else total - free)


DETECTOR = Detector(
    name="intel",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    pci_vendors=frozenset({"8086"}),
    # not 0x12: those are the NPUs of processors
    pci_classes=("0x03",),
    tools=("xpu-smi",),
    look=look,
    rank=9,
)

"""The GPU of Apple's own chips, by system_profiler and sysctl."""

from __future__ import annotations

from gpustack.domain.device import DEVICE_TYPES, Device
from gpustack.hardware.detector import Detector, DetectorReport, with_faults
from gpustack.hardware.figures import cores, entry, json_in, memory, size, text, whole
from gpustack.hardware.probe import DeviceProbe

VENDOR = "Apple"
_SHARE = 0.75
"""Of the machine's memory, as much as Metal lets one process have by default on all but the smallest machines."""


def look(probe: DeviceProbe) -> DetectorReport:
    """GPUs of other vendors in older machines are not driven by any engine."""
    answer = probe.run("system_profiler", "SPDisplaysDataType", "-json")
    if not answer.is_installed:
        return DetectorReport()
    listed = entry(json_in(answer.out), "SPDisplaysDataType")
    chips = [
        one
        for one in (listed if isinstance(listed, list) else ())
        if entry(one, "spdisplays_vendor") == "sppci_vendor_Apple"
    ]
    if not chips and answer.fault is None:
        return DetectorReport()
    total = size(probe.run("sysctl", "-n", "hw.memsize").out, "B") if chips else None
    usable = None if total is None else int(total * _SHARE)
    return with_faults(
        VENDOR, [_device(n, chip, usable) for n, chip in enumerate(chips)], {"system_profiler": answer}
    )


def _device(number: int, chip: object, total: int | None) -> Device:
    return Device(
        index=number,
        name=text(entry(chip, "sppci_model")) or VENDOR,
        vendor=VENDOR,
        type=DEVICE_TYPES[VENDOR.lower()],
        core=cores(whole(entry(chip, "sppci_cores")), None),
        memory=memory(total, None, unified=True),
    )


DETECTOR = Detector(
    name="apple",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    tools=("system_profiler",),
    folders=("/usr/sbin",),
    look=look,
)

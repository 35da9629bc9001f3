"""Hygon DCUs, by hy-smi, which descends from rocm-smi."""

from __future__ import annotations

from gpustack.domain.device import DEVICE_TYPES, Device
from gpustack.hardware.detector import Detector, DetectorReport, with_faults, without_tool
from gpustack.hardware.detectors import _rocm_smi
from gpustack.hardware.figures import text
from gpustack.hardware.probe import DeviceProbe

VENDOR = "Hygon"


def look(probe: DeviceProbe) -> DetectorReport:
    """Older toolkits have it under its former name."""
    for tool in DETECTOR.tools:
        answer, listed = _rocm_smi.ask(probe, tool)
        cards = [one for one in listed if tool == "hy-smi" or _rocm_smi.is_hygon(one[1])]
        if answer.is_installed:
            driver = text(probe.read("/sys/module/hycu/version")) or text(
                probe.read("/sys/module/hydcu/version")
            )
            return with_faults(
                VENDOR, [_device(number, one, driver) for number, one in cards], {tool: answer}
            )
    return without_tool(DETECTOR)


def _device(number: int, fields: _rocm_smi.Fields, driver: str | None) -> Device:
    gfx = _rocm_smi.gfx_of(fields)
    return Device(
        index=number,
        name=_rocm_smi.name_of(fields) or VENDOR,
        vendor=VENDOR,
        type=DEVICE_TYPES[VENDOR.lower()],
        uuid=_rocm_smi.unique_id(fields),
        core=_rocm_smi.core_of(fields),
        memory=_rocm_smi.memory_of(fields),
        temperature=_rocm_smi.temperature_of(fields),
        driver_version=driver,
        labels={} if gfx is None else {"llvm": gfx},
    )


DETECTOR = Detector(
    name="hygon",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    pci_vendors=frozenset({"1d94"}),
    tools=("hy-smi", "rocm-smi"),
    folders=("/opt/hyhal/bin", "/usr/local/hyhal/bin", "/opt/dtk/bin"),
    look=look,
)

"""T-Head PPUs, by ppu-smi, which answers as nvidia-smi does."""

from __future__ import annotations

from gpustack.domain.device import DEVICE_TYPES
from gpustack.hardware.detector import Detector, DetectorReport, with_faults, without_tool
from gpustack.hardware.detectors._query import ask, device_of
from gpustack.hardware.probe import DeviceProbe

VENDOR = "T-Head"
_FIELDS = (
    "index",
    "name",
    "uuid",
    "driver_version",
    "memory.total",
    "memory.used",
    "utilization.ppu",
    "temperature.ppu",
)


def look(probe: DeviceProbe) -> DetectorReport:
    """A line of values for each card."""
    answer, rows = ask(probe, "ppu-smi", "query-ppu", _FIELDS)
    if not answer.is_installed:
        return without_tool(DETECTOR)
    return with_faults(VENDOR, [device_of(row, VENDOR, DETECTOR.type) for row in rows], {"ppu-smi": answer})


DETECTOR = Detector(
    name="thead",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    pci_vendors=frozenset({"1ded"}),
    pci_classes=("0x03", "0x12"),
    device_files=("dev/alixpu",),
    tools=("ppu-smi",),
    folders=("/usr/local/PPU_SDK/bin", "/usr/local/PPU_SDK/ppu-smi/bin"),
    look=look,
)

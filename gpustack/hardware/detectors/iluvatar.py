"""Iluvatar devices, by ixsmi, which answers as nvidia-smi does."""

from __future__ import annotations

from gpustack.domain.device import DEVICE_TYPES
from gpustack.hardware.detector import Detector, DetectorReport, with_faults, without_tool
from gpustack.hardware.detectors._query import ask, device_of
from gpustack.hardware.probe import DeviceProbe

VENDOR = "Iluvatar"
_FIELDS = ("index", "name", "uuid", "memory.total", "memory.used", "utilization.gpu", "temperature.gpu")


def look(probe: DeviceProbe) -> DetectorReport:
    """A line of values for each card."""
    answer, rows = ask(probe, "ixsmi", "query-gpu", _FIELDS)
    if not answer.is_installed:
        return without_tool(DETECTOR)
    return with_faults(VENDOR, [device_of(row, VENDOR, DETECTOR.type) for row in rows], {"ixsmi": answer})


DETECTOR = Detector(
    name="iluvatar",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    pci_vendors=frozenset({"1e3e"}),
    device_files=("dev/iluvatar0",),
    tools=("ixsmi",),
    folders=("/usr/local/corex/bin",),
    look=look,
)

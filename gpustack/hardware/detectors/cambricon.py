"""Cambricon MLUs, by cnmon, which writes its answer to a file in its working directory."""

from __future__ import annotations

from gpustack.domain.device import DEVICE_TYPES, Device
from gpustack.hardware.detector import Detector, DetectorReport, with_faults, without_tool
from gpustack.hardware.figures import celsius, cores, entry, json_in, memory, percent, size, text, whole
from gpustack.hardware.probe import DeviceProbe

VENDOR = "Cambricon"
_FILE = "cnmon_info.json"


def look(probe: DeviceProbe) -> DetectorReport:
    """It also says at length on its standard output what is in the file."""
    answer = probe.run("cnmon", "info", "-e", "-m", "-u", "-j", file=_FILE)
    if not answer.is_installed:
        return without_tool(DETECTOR)
    cards = entry(json_in(answer.out), "CnmonInfo")
    devices = [_device(number, card) for number, card in enumerate(cards if isinstance(cards, list) else ())]
    return with_faults(VENDOR, devices, {"cnmon": answer})


def _device(place: int, card: object) -> Device:
    number, used = whole(entry(card, "CardNum")), entry(card, "PhysicalMemUsage")
    return Device(
        index=place if number is None else number,
        name=text(entry(card, "ProductName")) or VENDOR,
        vendor=VENDOR,
        type=DEVICE_TYPES[VENDOR.lower()],
        uuid=text(entry(card, "UUID")),
        core=cores(None, percent(entry(card, "Utilization", "MLUAverage"))),
        memory=memory(size(entry(used, "Total"), "MiB"), size(entry(used, "Used"), "MiB")),
        temperature=celsius(entry(card, "Temperature", "Chip")),
        driver_version=text(entry(card, "DriverVersion")),
    )


DETECTOR = Detector(
    name="cambricon",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    pci_vendors=frozenset({"cabc"}),
    device_files=("dev/cambricon_dev0",),
    tools=("cnmon",),
    folders=("/usr/bin", "/usr/local/neuware/bin"),
    look=look,
)

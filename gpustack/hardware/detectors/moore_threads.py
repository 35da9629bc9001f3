"""Moore Threads devices, by mthreads-gmi."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gpustack.domain.device import DEVICE_TYPES, Device
from gpustack.hardware.detector import Detector, DetectorReport, with_faults, without_tool
from gpustack.hardware.figures import celsius, cores, memory, pairs, percent, size, text
from gpustack.hardware.probe import DeviceProbe

VENDOR = "Moore Threads"


def look(probe: DeviceProbe) -> DetectorReport:
    """``-q`` prints a paragraph for each card, in the order of their numbers."""
    answer = probe.run("mthreads-gmi", "-q")
    if not answer.is_installed:
        return without_tool(DETECTOR)
    driver = re.search(r"Driver Version\s*:\s*(\S+)", answer.out)
    version = None if driver is None else text(driver[1])
    cards = enumerate(_cards(answer.out))
    return with_faults(
        VENDOR, [_device(number, card, version) for number, card in cards], {"mthreads-gmi": answer}
    )


def _cards(output: str) -> Iterator[dict[str, str]]:
    """Every card tells its name once, and first. Of a key that comes twice (power and memory have a total) the first
    with a unit of bytes is meant."""
    card: dict[str, str] | None = None
    for _, key, value in pairs(output):
        if key == "Product Name":
            if card is not None:
                yield card
            card = {}
        if (
            card is not None
            and value
            and (key not in ("Total", "Used") or re.search(r"\d\s*[KMG]i?B", value))
        ):
            card.setdefault(key, value)
    if card is not None:
        yield card


def _device(number: int, card: dict[str, str], driver: str | None) -> Device:
    return Device(
        index=number,
        name=text(card.get("Product Name")) or VENDOR,
        vendor=VENDOR,
        type=DEVICE_TYPES[VENDOR.lower()],
        uuid=text(card.get("GPU UUID") or card.get("UUID")),
        core=cores(None, percent(card.get("Gpu"))),
        memory=memory(size(card.get("Total"), "MiB"), size(card.get("Used"), "MiB")),
        temperature=celsius(card.get("GPU Current Temp")),
        driver_version=driver,
    )


DETECTOR = Detector(
    name="moore_threads",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    pci_vendors=frozenset({"1ed5"}),
    device_files=("dev/mtgpu.0",),
    tools=("mthreads-gmi",),
    folders=("/usr/bin", "/usr/local/musa/bin"),
    look=look,
)

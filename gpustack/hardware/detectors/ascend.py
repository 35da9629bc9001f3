"""Huawei Ascend NPUs, by npu-smi. A card may have several chips; each is a device."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from gpustack.domain.device import DEVICE_TYPES, Device, DeviceMemory, DeviceNetwork
from gpustack.hardware.detector import Detector, DetectorReport, with_faults, without_tool
from gpustack.hardware.figures import cells, celsius, cores, memory, percent, size, text
from gpustack.hardware.probe import DeviceProbe
from gpustack.hardware.topology import matrix

VENDOR = "Huawei"
_UNFIT = frozenset({"critical", "offline", "fault"})
_ADDRESS = re.compile(r"[0-9a-fx]{4,8}:[0-9a-fx]{2}:[0-9a-fx]{2}\.[0-9a-f]|N/?A", re.IGNORECASE)


def look(probe: DeviceProbe) -> DetectorReport:
    """Two lines of a table for each chip; ``-m`` tells the number by which programs call it."""
    answer = probe.run("npu-smi", "info")
    if not answer.is_installed:
        return without_tool(DETECTOR)
    chips = sorted(_chips(answer.out), key=lambda chip: (chip["card"], chip["chip"]))
    known = dict(_numbers(probe.run("npu-smi", "info", "-m").out)) if chips else {}
    driver = re.search(r"Version:\s*(\S+)", answer.out)
    topology = matrix(probe.run("npu-smi", "info", "-t", "topo").out if len(chips) > 1 else "", "NPU")
    networks = _networks(probe.read("/etc/hccn.conf") or "")
    devices = []
    for place, chip in enumerate(chips):
        number = known.get((chip["card"], chip["chip"]), place)
        device = _device(number, chip, None if driver is None else text(driver[1]))
        devices.append(attrs.evolve(device, links=topology.links(number), network=networks.get(number)))
    return with_faults(VENDOR, devices, {"npu-smi info": answer})


def _chips(output: str) -> Iterator[Mapping[str, Any]]:
    """The first line of a chip has its card, name and health; the second its own number, address, load and memory."""
    first: list[str] | None = None
    for line in output.splitlines():
        row = cells(line)
        if len(row) != 3:
            continue
        if _ADDRESS.fullmatch(row[1]) and first is not None and row[0].split()[:1]:
            card, *name = first[0].split(maxsplit=1)
            chip = row[0].split()[0]
            if card.isdecimal() and chip.isdecimal():
                yield {
                    "card": int(card),
                    "chip": int(chip),
                    "name": name[0] if name else "",
                    "health": first[1],
                    "power_and_heat": first[2].split(),
                    "load_and_memory": row[2],
                }
            first = None
        elif re.match(r"\d{1,5}\s+\S", row[0]):
            first = row


def _numbers(output: str) -> Iterator[tuple[tuple[int, int], int]]:
    """Card and chip → logic number; the controller of a card (``Mcu``) has none."""
    for line in output.splitlines():
        words = line.split()[:3]
        if len(words) == 3 and all(word.isdecimal() and len(word) < 6 for word in words):
            yield (int(words[0]), int(words[1])), int(words[2])


def _device(number: int, chip: Mapping[str, Any], driver: str | None) -> Device:
    name = text(chip["name"]) or VENDOR
    heat = chip["power_and_heat"][1:2]
    health = str(chip["health"])
    load = chip["load_and_memory"].split()[:1]
    return Device(
        index=number,
        name=f"Ascend {name}" if name[0].isdecimal() else name,
        vendor=VENDOR,
        type=DEVICE_TYPES[VENDOR.lower()],
        device_index=chip["card"],
        device_chip_index=chip["chip"],
        core=cores(None, percent(load[0])) if load else None,
        memory=_memory(chip["load_and_memory"]),
        temperature=celsius(heat[0]) if heat else None,
        driver_version=driver,
        fault=f"npu-smi says of the health of this NPU: {text(health)}" if health.lower() in _UNFIT else None,
    )


def _memory(figures: str) -> DeviceMemory:
    """Memory of the processor and of the chip: the last that there is any of is what models are in."""
    found = re.findall(r"(\d{1,9})\s*/\s*(\d{1,9})", figures)
    used, total = next(((used, total) for used, total in reversed(found) if int(total)), ("", ""))
    return memory(size(total, "MB"), size(used, "MB"))


def _networks(settings: str) -> dict[int, DeviceNetwork]:
    """``address_0=192.168.1.8``: the network of each chip as its driver is told it at boot."""
    found: dict[int, dict[str, Any]] = {}
    for line in settings.splitlines():
        told = re.fullmatch(r"(address|netmask|gateway)_(\d{1,4})=(\S{1,64})", line.strip())
        if told is not None:
            field = "inet" if told[1] == "address" else told[1]
            found.setdefault(int(told[2]), {})[field] = told[3]
    return {number: DeviceNetwork(**fields) for number, fields in found.items() if "inet" in fields}


DETECTOR = Detector(
    name="ascend",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    pci_vendors=frozenset({"19e5"}),
    # its display controllers (0x03) are those of Huawei's own servers
    pci_classes=("0x12",),
    device_files=("dev/davinci_manager",),
    tools=("npu-smi",),
    folders=("/usr/local/sbin", "/usr/local/bin", "/usr/local/Ascend/driver/tools"),
    look=look,
)

"""MetaX devices, by mx-smi."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import attrs

from gpustack.domain.device import DEVICE_TYPES, Device
from gpustack.hardware.detector import Detector, DetectorReport, with_faults, without_tool
from gpustack.hardware.figures import cells, celsius, cores, memory, percent, size, text
from gpustack.hardware.probe import DeviceProbe
from gpustack.hardware.topology import matrix

VENDOR = "MetaX"
_USABLE = "available"


def look(probe: DeviceProbe) -> DetectorReport:
    """A table with two lines for each card; ``-L`` tells the uuids, ``topo -n`` how the cards are joined."""
    answer = probe.run("mx-smi")
    if not answer.is_installed:
        return without_tool(DETECTOR)
    driver = re.search(r"Driver Version:\s*(\S+)", answer.out)
    devices = list(_devices(answer.out, None if driver is None else text(driver[1])))
    uuids = _uuids(probe.run("mx-smi", "-L").out) if devices else {}
    topology = matrix(probe.run("mx-smi", "topo", "-n").out if len(devices) > 1 else "", "GPU")
    whole = [
        attrs.evolve(device, uuid=uuids.get(device.index), links=topology.links(device.index))
        for device in devices
    ]
    return with_faults(VENDOR, whole, {"mx-smi": answer})


def _devices(output: str, driver: str | None) -> Iterator[Device]:
    """The first line has number, name and load; the second temperature, memory and state."""
    first: list[str] | None = None
    for line in output.splitlines():
        row = cells(line)
        if len(row) != 3:
            first = None
        elif re.match(r"\d{1,4}\s+\S", row[0]) and re.match(r"[0-9a-f]{4}:", row[1], re.IGNORECASE):
            first = row
        elif first is not None:
            yield _device(first, row, driver)
            first = None


def _device(first: list[str], second: list[str], driver: str | None) -> Device:
    number, name = first[0].split(maxsplit=1)
    # the last column is a mode that newer releases print in the same cell
    name = re.sub(r"\s{2,}.*$", "", name)
    used, _, total = second[1].partition("/")
    state = text(second[2])
    usable = state is None or state.lower() == _USABLE
    return Device(
        index=int(number),
        name=text(name) or VENDOR,
        vendor=VENDOR,
        type=DEVICE_TYPES[VENDOR.lower()],
        core=cores(None, percent(first[2])),
        memory=memory(size(total, "MiB"), size(used, "MiB")),
        temperature=celsius(second[0]),
        driver_version=driver,
        fault=None if usable else f"mx-smi says of the state of this GPU: {state}",
    )


def _uuids(output: str) -> Mapping[int, str]:
    """Lines like ``GPU#0  MXC500  0000:08:00.0  Available (UUID: GPU-…)``."""
    found = re.findall(r"^GPU#(\d{1,4})\b.*\(UUID:\s*([\w-]{4,64})\)", output, re.MULTILINE)
    return {int(number): uuid for number, uuid in found}


DETECTOR = Detector(
    name="metax",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    pci_vendors=frozenset({"9999"}),
    device_files=("dev/mxcd",),
    tools=("mx-smi",),
    folders=("/opt/mxdriver/bin", "/opt/maca/bin"),
    look=look,
)

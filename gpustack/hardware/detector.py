"""What a detector of accelerators is, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs

from gpustack.domain.device import Device
from gpustack.hardware.probe import DeviceProbe, Library, ToolAnswer

MOST_DEVICES = 1024


@attrs.frozen(kw_only=True)
class DeviceUse:
    """Which processes hold how many bytes of a device, by their pids, as the driver numbers them."""

    type: str
    index: int
    by_process: Mapping[int, int]
    partial: bool = False
    """There may be programs that are not told of: those that only draw."""


@attrs.frozen(kw_only=True)
class DetectorReport:
    """What one look found. ``faults`` are sentences; they do not make the devices found beside them invalid.

    ``uses`` has the devices of which the driver tells who holds their memory.
    """

    devices: tuple[Device, ...] = ()
    faults: tuple[str, ...] = ()
    uses: tuple[DeviceUse, ...] = ()
    left: tuple[tuple[int, int], ...] = ()
    """Tools that hang and cannot be ended (``MachineProbe.left``)."""


@attrs.frozen(kw_only=True)
class Detector:
    """One family of devices. ``look`` may block or hang: it is called in a child process only.

    It is asked where a vendor of ``pci_vendors`` has a device of ``pci_classes`` on the PCI bus, or one of
    ``device_files`` exists; where the bus cannot be looked at, if one of its ``tools`` is installed or it has none.
    """

    name: str
    label: str
    """The vendor, as it is shown."""
    type: str
    """That of its devices (``DEVICE_TYPES``)."""
    look: Callable[[DeviceProbe], DetectorReport]
    pci_vendors: frozenset[str] = frozenset()
    pci_classes: tuple[str, ...] = ("0x03", "0x12", "0x0b40")
    """Display controllers, processing accelerators and co-processors; the rest are bridges, disks and network cards."""
    device_files: tuple[str, ...] = ()
    """Relative to ``/``, for devices that are not on the bus (in virtual machines, on boards)."""
    tools: tuple[str, ...] = ()
    """The programs that it runs, the preferred one first."""
    folders: tuple[str, ...] = ()
    """Where its vendor installs them, beside PATH."""
    library: Callable[[], Library] | None = None
    """Loads the library that it calls."""
    rank: int = 1
    """Which family keeps its numbers where there are several in a machine: that of the lowest rank, then name."""


def without_tool(detector: Detector) -> DetectorReport:
    """The report where a vendor's device is there and none of its tools is."""
    tools = " or ".join(detector.tools)
    return DetectorReport(
        faults=(
            f"{detector.label} devices cannot be looked at: {tools} is not installed (it comes with the vendor's "
            "driver; install that, or give the container access to it)",
        )
    )


def with_faults(label: str, devices: Iterable[Device], answers: Mapping[str, ToolAnswer]) -> DetectorReport:
    """What was found, and a sentence for each tool that failed; or for those that told of no device at all."""
    found = tuple(devices)
    faults = [f"{label} devices: {tool} {answer.fault}" for tool, answer in answers.items() if answer.fault]
    if not found and not faults:
        faults = [f"{label} devices cannot be looked at: what {' and '.join(answers)} said names no device"]
    return DetectorReport(devices=found, faults=tuple(faults))


class InvalidDetectorReport(ValueError):
    """What a detection child wrote is not a report."""

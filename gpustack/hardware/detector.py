"""What a detector of accelerators is, and how its report travels from the child that ran it: as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import cattrs

from gpustack.domain.device import Device

MOST_DEVICES = 1024


@attrs.frozen(kw_only=True)
class DeviceUse:
    """Which processes hold how many bytes of a device, by their pids, as the driver numbers them."""

    type: str
    index: int
    by_process: Mapping[int, int]


@attrs.frozen(kw_only=True)
class DetectorReport:
    """What one look found. ``faults`` are sentences; they do not make the devices found beside them invalid.

    ``uses`` has the devices of which the driver tells who holds their memory.
    """

    devices: tuple[Device, ...] = ()
    faults: tuple[str, ...] = ()
    uses: tuple[DeviceUse, ...] = ()


@attrs.frozen(kw_only=True)
class Detector:
    """One family of devices. ``look`` may block or hang: it is called in a child process only.

    It is asked where a vendor of ``pci_vendors`` is on the PCI bus, or one of ``device_files`` exists.
    """

    name: str
    label: str
    pci_vendors: frozenset[str]
    device_files: tuple[str, ...] = ()
    """Relative to ``/``, for devices that are not on the bus (in virtual machines, on boards)."""
    look: Callable[[], DetectorReport]


class InvalidDetectorReport(ValueError):
    """What a detection child wrote is not a report."""


def to_json(found: DetectorReport) -> dict[str, Any]:
    """``found`` as values that ``json`` can write."""
    return attrs.asdict(found)


def from_json(document: object) -> DetectorReport:
    """The inverse of ``to_json``; raises ``InvalidDetectorReport``."""
    if not isinstance(document, dict):
        raise InvalidDetectorReport("not a report of devices")
    try:
        found = cattrs.structure(document, DetectorReport)
    except (cattrs.BaseValidationError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise InvalidDetectorReport(f"not a report of devices: {error}") from error
    if len(found.devices) > MOST_DEVICES:
        raise InvalidDetectorReport(f"{len(found.devices)} devices in one machine")
    return found

"""What a detector of accelerators is, and how what it found travels from the child that ran it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import cattrs

from gpustack.domain.device import Device

MOST_DEVICES = 1024


@attrs.frozen(kw_only=True)
class DetectorReport:
    """What one look found. ``faults`` are sentences; the devices found besides them hold all the same."""

    devices: tuple[Device, ...] = ()
    faults: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Detector:
    """One family of devices: ``look`` is only called in a child process, where the PCI bus shows one of its vendors."""

    name: str
    label: str
    pci_vendors: frozenset[str]
    device_files: tuple[str, ...] = ()
    """Relative to ``/``: where a device is not on the bus (virtual machines, boards) but such a file exists."""
    look: Callable[[], DetectorReport]


class InvalidDetectorReport(ValueError):
    """What came out of a detection child is not a report."""


def to_json(found: DetectorReport) -> dict[str, Any]:
    """``found`` as plain values for ``json``."""
    return attrs.asdict(found)


def from_json(document: object) -> DetectorReport:
    """The inverse of ``to_json``; raises BadReport."""
    if not isinstance(document, dict):
        raise InvalidDetectorReport("not a report of devices")
    try:
        found = cattrs.structure(document, DetectorReport)
    except (cattrs.BaseValidationError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise InvalidDetectorReport(f"not a report of devices: {error}") from error
    if len(found.devices) > MOST_DEVICES:
        raise InvalidDetectorReport(f"{len(found.devices)} devices in one machine")
    return found

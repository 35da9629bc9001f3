"""Which vendors' devices are plugged in: read from the bus in microseconds, before any vendor's library is asked."""

from __future__ import annotations

from pathlib import Path

from gpustack.hardware.detector import Detector

_ACCELERATOR_CLASSES = ("0x03", "0x12", "0x0b40")
"""Display controllers, processing accelerators and co-processors; the rest are bridges, disks and network cards."""


def vendors(root: Path = Path("/")) -> frozenset[str] | None:
    """The vendor ids (``10de``) of accelerators on the bus; ``None`` where the bus cannot be looked at."""
    try:
        entries = sorted((root / "sys/bus/pci/devices").iterdir())
    except OSError:
        return None
    found = set()
    for entry in entries:
        vendor, kind = _word(entry / "vendor"), _word(entry / "class")
        if vendor and (not kind or kind.startswith(_ACCELERATOR_CLASSES)):
            found.add(vendor.removeprefix("0x"))
    return frozenset(found)


def is_plugged(detector: Detector, bus: frozenset[str] | None, root: Path = Path("/")) -> bool:
    """Whether it is worth asking: a vendor on the bus, a device file that tells, or a bus that nobody may see."""
    if bus is None or bus & detector.pci_vendors:
        return True
    return any((root / path).exists() for path in detector.device_files)


def _word(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(32).strip().lower()
    except OSError:
        return ""

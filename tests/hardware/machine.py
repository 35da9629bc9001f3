"""A machine that is not there: a bus with a card on it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def plug(root: Path, vendor: str = "0x10de", kind: str = "0x030200", slot: int = 0x1B) -> Path:
    """Put a card of ``vendor`` on the bus below ``root``."""
    folder = root / f"sys/bus/pci/devices/0000:{slot:02x}:00.0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")
    return root

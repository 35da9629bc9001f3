"""Sizes in bytes, and how they are shown: with binary prefixes."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

STEPS = ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))


def human_bytes(count: int | None) -> str:
    """``3221225472`` → ``3.0 GiB``; ``None`` → ``unknown``."""
    if count is None:
        return "unknown"
    sign, size = ("-" if count < 0 else ""), abs(count)
    for step, name in STEPS:
        if size >= step:
            return f"{sign}{size / step:.1f} {name}"
    return f"{sign}{size} B"

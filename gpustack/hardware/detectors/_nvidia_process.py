"""Which processes hold how much memory of an NVIDIA device, by NVML. Runs in the detection child only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpustack.hardware.detectors._nvidia_card import Card


def held_by_process(card: Card) -> Mapping[int, int] | None:
    """Bytes by pid, as the machine numbers its processes; ``None`` where the driver does not tell, or not of each."""
    found: dict[int, int] = {}
    for kind in ("Compute", "Graphics", "MPSCompute"):
        seen = _running(card, f"Get{kind}RunningProcesses")
        if seen is None and kind == "Compute":
            return None
        for one in seen or ():
            if one["usedGpuMemory"] is None:
                return None
            # a program that computes and draws is in both lists, with the same figure
            pid = int(one["pid"])
            found[pid] = max(found.get(pid, 0), int(one["usedGpuMemory"]))
    return found


def _running(card: Card, name: str) -> Sequence[Mapping[str, Any]] | None:
    """The newest form of the question that library and driver have. The one without a version raises what is no
    ``NVMLError`` where the driver is older than the library."""
    for version in ("_v3", "_v2"):
        seen: Sequence[Mapping[str, Any]] | None = card.ask(f"{name}{version}")
        if seen is not None:
            return seen
    return None

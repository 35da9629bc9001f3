"""``python -m gpustack.hardware.look NAME``: the child in which a detector asks its vendor's tool or library.

It is started every few seconds, so what it imports is kept small.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from gpustack.hardware.detector import Detector, DetectorReport
from gpustack.hardware.probe import MachineProbe
from gpustack.hardware.recording import RecordingProbe
from gpustack.plugins import siblings

RECORD = "--record"
"""With this the child tells line by line what it asks and is told, and its report at the end."""


def detectors() -> tuple[Detector, ...]:
    """All detectors, the modules of ``gpustack/hardware/detectors``, by rank and name."""
    found = (module.DETECTOR for module in siblings("gpustack.hardware.detectors"))
    return tuple(sorted(found, key=lambda one: (one.rank, one.name)))


def to_json(found: DetectorReport) -> dict[str, Any]:
    """``found`` as values that ``json`` can write; ``detection.from_json`` is the inverse."""
    return attrs.asdict(found)


def main(arguments: Sequence[str]) -> int:
    """The child: print what the named detector finds as JSON."""
    records = RECORD in arguments
    names = [one for one in arguments if one != RECORD]
    chosen = {one.name: one for one in detectors()}.get(names[0] if len(names) == 1 else "")
    if chosen is None:
        known = "|".join(one.name for one in detectors())
        sys.stderr.write(f"usage: python -m gpustack.hardware.look {known} [{RECORD}]\n")
        return 2
    # libraries may write to stdout themselves: keep the report's channel for the report
    channel = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(channel, "w") as out:

        def tell(document: Mapping[str, object]) -> None:
            out.write(json.dumps(document) + "\n")
            out.flush()

        probe = MachineProbe(
            folders=chosen.folders, library=None if chosen.library is None else chosen.library()
        )
        report = chosen.look(RecordingProbe(probe, tell) if records else probe)
        found = to_json(attrs.evolve(report, left=tuple(probe.left)))
        tell({"report": found} if records else found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

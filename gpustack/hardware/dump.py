"""Everything that detectors see on this machine as one document, and what the detectors make of such a document."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import trio

from gpustack import __commit__, __version__
from gpustack.hardware.child import ChildResult, run_child
from gpustack.hardware.detection import DEADLINE, DeviceMonitor, devices_on_bus
from gpustack.hardware.detector import Detector, DetectorReport
from gpustack.hardware.look import RECORD, detectors, to_json
from gpustack.hardware.recording import ReplayProbe
from gpustack.text import printable

KIND, FORMAT = "gpustack hardware dump", 1
MOST_BYTES = 16 << 20
"""Of what one detector asked and was told."""
PATIENCE = 2.0
"""Times the deadline of a usual look: to tell a tool that is slow from one that hangs."""

Doc = dict[str, Any]


class InvalidDump(ValueError):
    """A document is not a dump of this format."""


async def take(monitor: DeviceMonitor, now: datetime) -> Doc:
    """Let every detector that may have devices here look once, and tell what it asked and was told. Nothing is replaced
    yet. Cancellable; takes ``PATIENCE`` times a look at most."""
    asked = monitor.worth_asking(now)
    found: dict[str, Doc] = {}

    async def look(detector: Detector) -> None:
        found[detector.name] = await _look(monitor, detector)

    async with trio.open_nursery() as nursery:
        for detector in asked:
            nursery.start_soon(look, detector)
    return {
        "kind": KIND,
        "format": FORMAT,
        "made": now.isoformat(),
        "gpustack": f"{__version__} ({__commit__})",
        "python": platform.python_version(),
        "system": {"name": platform.system(), "release": platform.release(), "machine": platform.machine()},
        "bus": [list(one) for one in sorted(devices_on_bus(monitor.root) or ())],
        "detectors": [found[one.name] for one in asked],
        "not_asked": sorted(one.name for one in monitor.detectors() if one not in asked),
    }


async def _look(monitor: DeviceMonitor, detector: Detector) -> Doc:
    begun = time.monotonic()
    answer = await run_child(
        [*monitor.command, detector.name, RECORD],
        deadline=DEADLINE * PATIENCE,
        env=monitor.env,
        limit=MOST_BYTES,
    )
    lines = list(_lines(answer.out))
    report = next((line["report"] for line in lines if "report" in line), None)
    asking = [line["asking"] for line in lines if "asking" in line]
    asked = [line["asked"] for line in lines if "asked" in line]
    return {
        "name": detector.name,
        "seconds": round(time.monotonic() - begun, 2),
        "asked": asked,
        **({"not_answered": asking[-1]} if len(asking) > len(asked) else {}),
        **({"report": report} if report is not None else {"error": _ended(answer)}),
    }


def _lines(output: bytes) -> list[Doc]:
    """What is whole of a recording: the last line of a child that was killed may not be."""
    found = []
    for line in output.decode("utf-8", "replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict)]


def _ended(answer: ChildResult) -> str:
    said = printable(answer.err.decode("utf-8", "replace").strip(), 2000)
    return answer.fault or f"exit code {answer.code}: {said}"


@attrs.frozen(kw_only=True)
class ReplayedLook:
    """What a dump says that a detector reported, and what it reports of the same answers now."""

    name: str
    recorded: Mapping[str, Any] | None
    """``None`` where it came to no end."""
    report: DetectorReport

    @property
    def is_as_recorded(self) -> bool:
        """As far as the recording goes: an older version knew fewer fields."""
        now = json.loads(json.dumps(to_json(self.report)))
        return self.recorded is not None and _agrees(self.recorded, now)


def _agrees(recorded: Any, now: Any) -> bool:
    if isinstance(recorded, dict) and isinstance(now, dict):
        return all(key in now and _agrees(value, now[key]) for key, value in recorded.items())
    if isinstance(recorded, list) and isinstance(now, list):
        return len(recorded) == len(now) and all(map(_agrees, recorded, now))
    return bool(recorded == now)


def replay(document: object) -> list[ReplayedLook]:
    """Let the detectors of now look at what a dump recorded. Raises InvalidDump. Blocks for a moment."""
    if not isinstance(document, dict) or document.get("kind") != KIND or document.get("format") != FORMAT:
        raise InvalidDump(f"not a {KIND} of format {FORMAT}")
    known = {one.name: one for one in detectors()}
    found = []
    for one in _entries(document.get("detectors")):
        detector = known.get(one["name"])
        if detector is not None:
            report = detector.look(ReplayProbe.of(_entries(one.get("asked"), "asked")))
            found.append(ReplayedLook(name=detector.name, recorded=one.get("report"), report=report))
    return found


def _entries(listed: object, of: str = "detectors") -> Sequence[Doc]:
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise InvalidDump(f"its {of} are not a list of objects")
    if of == "detectors" and not all(isinstance(one.get("name"), str) for one in listed):
        raise InvalidDump("a detector in it has no name")
    return listed


def load(path: Path) -> object:
    """A dump as it lies in a file. Raises InvalidDump, OSError."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidDump(f"not JSON: {error}") from error

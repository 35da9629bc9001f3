"""Finds accelerators: ``python -m gpustack.hardware.detection NAME`` is the child that asks a vendor's library."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import attrs
import trio

from gpustack.domain.device import Device
from gpustack.hardware.child import ChildResult, run_child
from gpustack.hardware.detector import Detector, DetectorReport, InvalidDetectorReport, from_json, to_json
from gpustack.hardware.pci import is_plugged, vendors
from gpustack.nursery.module import module_command
from gpustack.plugins import siblings
from gpustack.text import printable, said_by

DEADLINE = 10.0
"""Seconds a vendor's library may take. The first call after boot loads firmware and is the slow one."""


@attrs.frozen(kw_only=True)
class Detection:
    """The accelerators of this machine, and why some could not be looked at (sentences).

    ``stale_since`` is set when devices of an earlier look are shown because a later one failed: its time.
    """

    devices: tuple[Device, ...] = ()
    faults: tuple[str, ...] = ()
    stale_since: datetime | None = None


def detectors() -> tuple[Detector, ...]:
    """Every detector there is: the modules of ``gpustack/hardware/detectors``."""
    return tuple(module.DETECTOR for module in siblings("gpustack.hardware.detectors"))


@attrs.define(eq=False)
class _DetectorState:
    """What is kept of one detector between looks."""

    devices: tuple[Device, ...] = ()
    seen: datetime | None = None
    stuck: trio.Process | None = None


@attrs.define(eq=False, kw_only=True)
class DeviceMonitor:
    """Looks at the accelerators again and again, and remembers the last good answer of each detector.

    ``root`` is where ``sys`` and ``dev`` are found; ``command`` starts the child and is given the detector's name;
    ``env`` is the child's environment, by default ours.
    """

    deadline: float = DEADLINE
    root: Path = Path("/")
    command: Sequence[str] = module_command("gpustack.hardware.detection")
    env: Mapping[str, str] | None = None
    detectors: Callable[[], tuple[Detector, ...]] = detectors
    _memories: dict[str, _DetectorState] = attrs.field(factory=dict)

    async def look(self, now: datetime) -> Detection:
        """Ask every detector whose vendor is on the bus, each in a child of its own, at the same time.

        Takes ``deadline`` and a little more at most; can be cancelled at any time. A child that cannot be killed
        is waited for: until it is gone its detector is not asked again, so hung drivers do not gather processes.
        """
        bus = vendors(self.root)
        asked = [one for one in self.detectors() if is_plugged(one, bus, self.root)]
        for gone in set(self._memories) - {one.name for one in asked}:
            if self._memories[gone].stuck is None:
                del self._memories[gone]
        results: dict[str, Detection] = {}

        async def ask(detector: Detector) -> None:
            results[detector.name] = await self._ask(detector, now)

        async with trio.open_nursery() as nursery:
            for detector in asked:
                nursery.start_soon(ask, detector)
        ordered = [results[one.name] for one in asked]
        stale = [one.stale_since for one in ordered if one.stale_since is not None]
        return Detection(
            devices=tuple(device for one in ordered for device in one.devices),
            faults=tuple(fault for one in ordered for fault in one.faults),
            stale_since=min(stale, default=None),
        )

    async def _ask(self, detector: Detector, now: datetime) -> Detection:
        memory = self._memories.setdefault(detector.name, _DetectorState())
        if memory.stuck is not None:
            if memory.stuck.poll() is None:
                fault = f"{detector.label} devices cannot be looked at: the last look still hangs inside the driver"
                return Detection(devices=memory.devices, faults=(fault,), stale_since=memory.seen)
            memory.stuck = None
        answer = await run_child([*self.command, detector.name], deadline=self.deadline, env=self.env)
        memory.stuck = answer.stuck
        found = _read(detector, answer)
        if isinstance(found, str):
            return Detection(devices=memory.devices, faults=(found,), stale_since=memory.seen)
        if found.faults and not found.devices and memory.devices:
            return Detection(devices=memory.devices, faults=found.faults, stale_since=memory.seen)
        memory.devices, memory.seen = found.devices, now
        return Detection(devices=found.devices, faults=found.faults)

    def __repr__(self) -> str:
        seen = ", ".join(
            f"{name}: {len(memory.devices)} devices{', hangs' if memory.stuck else ''}"
            for name, memory in sorted(self._memories.items())
        )
        return f"<DeviceWatch {seen or 'nothing found'}>"


async def detect_devices(
    *,
    now: datetime,
    deadline: float = DEADLINE,
    root: Path = Path("/"),
    env: Mapping[str, str] | None = None,
) -> Detection:
    """One look without memory. For repeated looks keep a ``DeviceMonitor``."""
    return await DeviceMonitor(deadline=deadline, root=root, env=env).look(now)


def _read(detector: Detector, answer: ChildResult) -> DetectorReport | str:
    """The child's report, or the sentence why there is none."""
    start = f"{detector.label} devices cannot be looked at"
    if answer.fault is not None:
        return f"{start}: the driver {answer.fault}"
    if answer.code != 0:
        last = answer.err.decode("utf-8", "replace").strip().splitlines()[-1:]
        how = (
            f"signal {-answer.code}"
            if answer.code is not None and answer.code < 0
            else f"exit code {answer.code}"
        )
        return f"{start}: the look ended with {how}" + "".join(f" ({printable(line, 200)})" for line in last)
    try:
        return from_json(json.loads(answer.out))
    except (ValueError, InvalidDetectorReport) as error:
        return f"{start}: its report cannot be read ({said_by(error)})"


def main(arguments: Sequence[str]) -> int:
    """The child: print what the named detector finds as JSON."""
    chosen = {one.name: one for one in detectors()}.get(arguments[0] if len(arguments) == 1 else "")
    if chosen is None:
        names = "|".join(one.name for one in detectors())
        sys.stderr.write(f"usage: python -m gpustack.hardware.detection {names}\n")
        return 2
    # libraries may write to stdout themselves: keep the report's channel for the report
    report = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(report, "w") as out:
        json.dump(to_json(chosen.look()), out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Finds accelerators. ``python -m gpustack.hardware.detection NAME`` is the child that asks a vendor's library."""

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
from gpustack.hardware.detector import (
    Detector,
    DetectorReport,
    DeviceUse,
    InvalidDetectorReport,
    from_json,
    to_json,
)
from gpustack.nursery.process import module_command
from gpustack.plugins import siblings
from gpustack.text import printable, said_by

DEADLINE = 10.0
"""Seconds a vendor's library may take. The first call after boot loads firmware and is the slow one."""
_ACCELERATOR_CLASSES = ("0x03", "0x12", "0x0b40")
"""Display controllers, processing accelerators and co-processors; the rest are bridges, disks and network cards."""


@attrs.frozen(kw_only=True)
class Detection:
    """The accelerators of this machine; ``faults`` are sentences on those that could not be looked at.

    ``stale_since`` is set while devices of an earlier look are shown because later ones failed: the time of that look.
    """

    devices: tuple[Device, ...] = ()
    faults: tuple[str, ...] = ()
    stale_since: datetime | None = None
    uses: tuple[DeviceUse, ...] = ()
    """Who holds the memory of the devices, of those whose driver tells, as of this look."""


def detectors() -> tuple[Detector, ...]:
    """All detectors: the modules of ``gpustack/hardware/detectors``."""
    return tuple(module.DETECTOR for module in siblings("gpustack.hardware.detectors"))


@attrs.define(eq=False)
class _DetectorState:
    """What is kept of one detector between two looks."""

    devices: tuple[Device, ...] = ()
    seen: datetime | None = None
    stuck: trio.Process | None = None


@attrs.define(eq=False, kw_only=True)
class DeviceMonitor:
    """Looks at the accelerators, and remembers the last good answer of each detector.

    ``root`` is where ``sys`` and ``dev`` are found. ``command`` starts the child, with the detector's name as its
    argument. ``env`` is the child's environment, by default ours.
    """

    deadline: float = DEADLINE
    root: Path = Path("/")
    command: Sequence[str] = module_command("gpustack.hardware.detection")
    env: Mapping[str, str] | None = None
    detectors: Callable[[], tuple[Detector, ...]] = detectors
    _states: dict[str, _DetectorState] = attrs.field(factory=dict)

    async def look(self, now: datetime) -> Detection:
        """Ask every detector whose vendor is on the bus, at the same time, each in a child of its own.

        Takes ``deadline`` and a little more at most. Cancellable. While a child that cannot be killed is not gone, its
        detector is not asked again, so that a hung driver does not gather processes.
        """
        bus = _vendors_on_bus(self.root)
        asked = [one for one in self.detectors() if _is_worth_asking(one, bus, self.root)]
        for gone in set(self._states) - {one.name for one in asked}:
            if self._states[gone].stuck is None:
                del self._states[gone]
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
            uses=tuple(use for one in ordered for use in one.uses),
        )

    async def _ask(self, detector: Detector, now: datetime) -> Detection:
        state = self._states.setdefault(detector.name, _DetectorState())
        if state.stuck is not None:
            if state.stuck.poll() is None:
                fault = f"{detector.label} devices cannot be looked at: the last look still hangs inside the driver"
                return Detection(devices=state.devices, faults=(fault,), stale_since=state.seen)
            state.stuck = None
        answer = await run_child([*self.command, detector.name], deadline=self.deadline, env=self.env)
        state.stuck = answer.stuck
        found = _read(detector, answer)
        if isinstance(found, str):
            return Detection(devices=state.devices, faults=(found,), stale_since=state.seen)
        if found.faults and not found.devices and state.devices:
            return Detection(devices=state.devices, faults=found.faults, stale_since=state.seen)
        state.devices, state.seen = found.devices, now
        return Detection(devices=found.devices, faults=found.faults, uses=found.uses)

    def __repr__(self) -> str:
        seen = ", ".join(
            f"{name}: {len(state.devices)} devices{', hangs' if state.stuck else ''}"
            for name, state in sorted(self._states.items())
        )
        return f"<DeviceMonitor {seen or 'nothing found'}>"


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


def _vendors_on_bus(root: Path) -> frozenset[str] | None:
    """The vendor ids (``10de``) of accelerators on the bus; ``None`` where the bus cannot be looked at."""
    try:
        entries = sorted((root / "sys/bus/pci/devices").iterdir())
    except OSError:
        return None
    found = set()
    for entry in entries:
        vendor, kind = _read_word(entry / "vendor"), _read_word(entry / "class")
        if vendor and (not kind or kind.startswith(_ACCELERATOR_CLASSES)):
            found.add(vendor.removeprefix("0x"))
    return frozenset(found)


def _is_worth_asking(detector: Detector, bus: frozenset[str] | None, root: Path) -> bool:
    """Whether its vendor is on the bus, a device file of it exists, or the bus cannot be looked at."""
    if bus is None or bus & detector.pci_vendors:
        return True
    return any((root / path).exists() for path in detector.device_files)


def _read_word(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(32).strip().lower()
    except OSError:
        return ""


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

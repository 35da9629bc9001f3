"""Finds accelerators, each family by a child of its own (``look.py``) that may hang."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import cattrs
import trio

from gpustack.domain.device import FAMILY_STRIDE, Device
from gpustack.hardware.child import ChildResult, run_child
from gpustack.hardware.detector import (
    MOST_DEVICES,
    Detector,
    DetectorReport,
    DeviceUse,
    InvalidDetectorReport,
)
from gpustack.hardware.look import detectors, main
from gpustack.hardware.probe import ending, find_tool, started_at
from gpustack.nursery.process import module_command
from gpustack.text import printable, said_by

DEADLINE = 10.0
"""Seconds a vendor's library may take. The first call after boot loads firmware and is the slow one."""
QUIET = timedelta(seconds=60)
"""How long a detector is not asked again that found nothing and no fault: a processor with graphics is no news.

Also how long the bus is not listed again, and the longest that a slow detector rests.
"""
SLOW = 1.0
"""Seconds of a look from which on its detector rests afterwards, ten times as long as it took: some vendors' tools take
seconds of processor time to say the same as before."""
_REST = 10


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


Bus = frozenset[tuple[str, str]]
"""Vendor and class of what is on it, in hexadecimal."""


@attrs.define(eq=False)
class _DetectorState:
    """What is kept of one detector between two looks."""

    devices: tuple[Device, ...] = ()
    seen: datetime | None = None
    stuck: trio.Process | None = None
    left: tuple[tuple[int, int], ...] = ()
    """Tools of the last look that hang and cannot be ended."""
    rests_until: datetime | None = None
    resting: Detection = Detection()
    """What is shown meanwhile."""

    def hangs(self) -> bool:
        """Whether a process of an earlier look is still there though it was killed."""
        if self.stuck is not None and self.stuck.poll() is None:
            return True
        return any(started_at(pid) == start for pid, start in self.left)


@attrs.define(eq=False, kw_only=True)
class DeviceMonitor:
    """Looks at the accelerators, and remembers the last good answer of each detector.

    ``root`` is where ``sys`` and ``dev`` are found. ``command`` starts the child, with the detector's name as its
    argument. ``env`` is the child's environment, by default ours.
    """

    deadline: float = DEADLINE
    root: Path = Path("/")
    command: Sequence[str] = module_command("gpustack.hardware.look")
    env: Mapping[str, str] | None = None
    detectors: Callable[[], tuple[Detector, ...]] = detectors
    _states: dict[str, _DetectorState] = attrs.field(factory=dict)
    _bus: tuple[datetime, Bus | None] | None = None

    async def look(self, now: datetime) -> Detection:
        """Ask every detector whose vendor is on the bus, at the same time, each in a child of its own.

        Takes ``deadline`` and a little more at most. Cancellable. While a child that cannot be killed is not gone, its
        detector is not asked again, so that a hung driver does not gather processes.
        """
        asked = self.worth_asking(now)
        for gone in set(self._states) - {one.name for one in asked}:
            if not self._states[gone].hangs():
                del self._states[gone]
        results: dict[str, Detection] = {}

        async def ask(detector: Detector) -> None:
            results[detector.name] = await self._ask(detector, now)

        async with trio.open_nursery() as nursery:
            for detector in asked:
                nursery.start_soon(ask, detector)
        ordered = [_moved(results[one.name], place * FAMILY_STRIDE) for place, one in enumerate(asked)]
        stale = [one.stale_since for one in ordered if one.stale_since is not None]
        return Detection(
            devices=tuple(device for one in ordered for device in one.devices),
            faults=tuple(fault for one in ordered for fault in one.faults),
            stale_since=min(stale, default=None),
            uses=tuple(use for one in ordered for use in one.uses),
        )

    def worth_asking(self, now: datetime) -> list[Detector]:
        """The detectors whose devices may be in this machine, in the order in which families keep their numbers."""
        if self._bus is None or not self._bus[0] <= now < self._bus[0] + QUIET:
            self._bus = (now, devices_on_bus(self.root))
        _, bus = self._bus
        return [one for one in self.detectors() if _is_worth_asking(one, bus, self.root)]

    async def _ask(self, detector: Detector, now: datetime) -> Detection:
        state = self._states.setdefault(detector.name, _DetectorState())
        if state.hangs():
            fault = (
                f"{detector.label} devices cannot be looked at: the last look still hangs inside the driver"
            )
            return Detection(devices=state.devices, faults=(fault,), stale_since=state.seen)
        state.stuck, state.left = None, ()
        if state.rests_until is not None and state.seen is not None and state.seen <= now < state.rests_until:
            return state.resting
        begun = trio.current_time()
        answer = await run_child([*self.command, detector.name], deadline=self.deadline, env=self.env)
        state.stuck = answer.stuck
        found = _read(detector, answer)
        state.rests_until = None
        if isinstance(found, str):
            return Detection(devices=state.devices, faults=(found,), stale_since=state.seen)
        state.left = found.left
        if found.faults and not found.devices and state.devices:
            return Detection(devices=state.devices, faults=found.faults, stale_since=state.seen)
        devices = _unique(found.devices)
        missing = _missing(state.devices, devices) if found.faults else ()
        before, state.devices, state.seen = state.seen, (*devices, *missing), now
        state.resting = Detection(
            devices=state.devices,
            faults=found.faults,
            stale_since=before if missing else None,
            uses=found.uses,
        )
        state.rests_until = None if found.faults else now + _rest(devices, trio.current_time() - begun)
        return state.resting

    def __repr__(self) -> str:
        seen = ", ".join(
            f"{name}: {len(state.devices)} devices{', hangs' if state.hangs() else ''}"
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
        how = "no exit code" if answer.code is None else ending(answer.code)
        return f"{start}: the look ended with {how}" + "".join(f" ({printable(line, 200)})" for line in last)
    try:
        return from_json(json.loads(answer.out))
    except (ValueError, InvalidDetectorReport) as error:
        return f"{start}: its report cannot be read ({said_by(error)})"


def _rest(found: Sequence[Device], took: float) -> timedelta:
    if not found:
        return QUIET
    return min(timedelta(seconds=took * _REST), QUIET) if took > SLOW else timedelta()


def _unique(devices: Sequence[Device]) -> tuple[Device, ...]:
    """The first of those with one index: claims are held by it."""
    return tuple({device.index: device for device in reversed(devices)}.values())[::-1]


def _missing(before: Sequence[Device], now: Sequence[Device]) -> tuple[Device, ...]:
    """Devices that a look did not find which had a fault: shown still, and nothing is placed on them."""
    found = {device.index for device in now}
    return tuple(
        attrs.evolve(device, fault=device.fault or "The last look at the devices did not find this one")
        for device in before
        if device.index not in found
    )


def _moved(detection: Detection, by: int) -> Detection:
    """With ``by`` added to all indexes."""
    return attrs.evolve(
        detection,
        devices=tuple(_renumbered(one, by) for one in detection.devices),
        uses=tuple(attrs.evolve(use, index=use.index + by) for use in detection.uses),
    )


def _renumbered(device: Device, by: int) -> Device:
    links = tuple(
        attrs.evolve(link, indexes=tuple(index + by for index in link.indexes)) for link in device.links
    )
    return attrs.evolve(device, index=device.index + by, links=links)


def devices_on_bus(root: Path) -> Bus | None:
    """Vendor (``10de``) and class of what is on the bus; ``None`` where it cannot be looked at."""
    try:
        entries = sorted((root / "sys/bus/pci/devices").iterdir())
    except OSError:
        return None
    words = ((_read_word(entry / "vendor"), _read_word(entry / "class")) for entry in entries)
    return frozenset((vendor.removeprefix("0x"), kind) for vendor, kind in words if vendor)


def _is_worth_asking(detector: Detector, bus: Bus | None, root: Path) -> bool:
    if any((root / path).exists() for path in detector.device_files):
        return True
    if bus is None:
        return not detector.tools or any(find_tool(tool, detector.folders) for tool in detector.tools)
    return any(
        vendor in detector.pci_vendors and (not kind or kind.startswith(detector.pci_classes))
        for vendor, kind in bus
    )


def _read_word(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(32).strip().lower()
    except OSError:
        return ""


def from_json(document: object) -> DetectorReport:
    """What a child wrote, as ``look.to_json`` made it; raises ``InvalidDetectorReport``."""
    if not isinstance(document, dict):
        raise InvalidDetectorReport("not a report of devices")
    try:
        found = cattrs.structure(document, DetectorReport)
    except (cattrs.BaseValidationError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise InvalidDetectorReport(f"not a report of devices: {error}") from error
    if len(found.devices) > MOST_DEVICES:
        raise InvalidDetectorReport(f"{len(found.devices)} devices in one machine")
    return found


if __name__ == "__main__":
    # a daemon of before the child moved to look.py starts it here, from the upgrade on disk to its reload
    sys.exit(main(sys.argv[1:]))

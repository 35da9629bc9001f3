"""Whose memory it is that devices have in use: that of engines here beyond their claims, and that of other programs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from gpustack.domain.device import Device
from gpustack.domain.instance import members_on
from gpustack.domain.unit import MIB
from gpustack.domain.worker import WorkerStatus
from gpustack.hardware.detector import DeviceUse
from gpustack.nursery.limiter import threads
from gpustack.nursery.process_owner import owners, sees_all_pids
from gpustack.nursery.state import GroupState, read_states
from gpustack.worker.assignment_watcher import AssignmentSnapshot
from gpustack.worker.engine_process import SeatKey, seat_on_record

_NOBODY = (0, 0)
"""The seat of Ray and of other processes of ours that run for no one instance."""
STEP = 64 * MIB
"""What is told is a multiple of this, rounded up."""
_FALLS_AFTER, _ENDS_AFTER = 6, 3
"""Looks in a row for which less must be in use before less is told: of other programs, which come and go, and of
engines, which take what they take until they end."""
DRIVER_SHARE = 512 * MIB
"""What a driver may hold of an idle device, where it does not tell who holds what. The system's reserve covers it."""
_threads = threads("device uses", 1)


@attrs.define(eq=False)
class SteadyAmount:
    """Bytes as they are told: in steps, more once two looks in a row found more, less once a number of looks did.

    So an engine that is just ending, whose processes the driver still lists, is not told as somebody else's, and a
    program that comes and goes is not told each time.
    """

    falls_after: int
    told: int | None = None
    _seen: deque[int] = attrs.field(factory=deque)

    def after(self, amount: int | None) -> int | None:
        """What to tell after a look that found ``amount``; ``None`` is unknown, and begins anew."""
        if amount is None:
            self.told = None
            self._seen.clear()
            return None
        self._seen.append(amount)
        while len(self._seen) > self.falls_after:
            self._seen.popleft()
        now, most = (-(-size // STEP) * STEP for size in (min(list(self._seen)[-2:]), max(self._seen)))
        if self.told is None or now > self.told:
            self.told = now
        elif len(self._seen) == self.falls_after and (most == 0 or most <= self.told - 2 * STEP):
            self.told = most
        return self.told


@attrs.frozen(kw_only=True)
class DeviceShare:
    """Bytes of one device in use without a claim. ``None`` where that cannot be told."""

    foreign: int | None = None
    overrun: int | None = None


def share_of(
    device: Device,
    use: DeviceUse | None,
    owned: Mapping[int, SeatKey | None],
    claims: Mapping[SeatKey, int] | None,
) -> DeviceShare:
    """Whose the memory of a device is.

    ``use``: what processes hold of it, where the driver tells. ``owned``: the seat of each process that is
    there. ``claims``: what the seats claim of it; ``None`` while that is not known yet.
    """
    if device.fault is not None:
        return DeviceShare()
    used = device.memory.used
    if use is None:
        if used is None or claims is None or device.memory.is_unified_memory:
            return DeviceShare()
        return DeviceShare(foreign=max(used - sum(claims.values()) - DRIVER_SHARE, 0))
    held: dict[SeatKey | None, int] = {}
    for pid, size in use.by_process.items():
        if pid in owned:
            held[owned[pid]] = held.get(owned[pid], 0) + size
    foreign = held.pop(None, 0)
    if use.partial and used is not None and not device.memory.is_unified_memory:
        foreign = max(foreign, used - sum(held.values()) - DRIVER_SHARE)
    if claims is None:
        return DeviceShare(foreign=foreign)
    beyond = (size - claims.get(seat, 0) for seat, size in held.items() if seat is not None)
    return DeviceShare(foreign=foreign, overrun=sum(max(size, 0) for size in beyond))


@attrs.define(eq=False, kw_only=True)
class DeviceUses:
    """Adds to a status what is in use of each device without a claim. Remembers former looks, so as not to flutter."""

    _state_dir: Path
    _assigned: Callable[[], AssignmentSnapshot]
    _sees_all_pids: Callable[[], bool] = sees_all_pids
    held: Mapping[SeatKey, Mapping[int, int]] = attrs.field(factory=dict)
    """What each engine held of which device at the last look, in bytes; without those of which nothing is told."""
    _foreign: dict[object, SteadyAmount] = attrs.field(factory=dict)
    _overrun: dict[object, SteadyAmount] = attrs.field(factory=dict)

    def of(self, instance_id: int, member: int) -> int | None:
        """Bytes of all devices that a member of an instance held at the last look; ``None`` where that is not told."""
        held = self.held.get((instance_id, member))
        return None if held is None else sum(held.values())

    async def over(self, status: WorkerStatus, uses: Sequence[DeviceUse]) -> WorkerStatus:
        """The status with ``foreign`` and ``overrun`` of its devices. Cancellable."""
        if not status.gpu_devices:
            return status
        found = await _threads.run(self._attributed, uses)
        claims = self._claims(found.seats)
        self.held = found.held
        is_stale = status.stale_since is not None
        devices = []
        for device in status.gpu_devices:
            key = device.type, device.index
            foreign = self._foreign.setdefault(key, SteadyAmount(_FALLS_AFTER))
            overrun = self._overrun.setdefault(key, SteadyAmount(_ENDS_AFTER))
            if not is_stale:  # else what was told last stays
                of_seats = None if claims is None else _on(device.index, claims)
                share = share_of(device, found.by_device.get(key), found.owned, of_seats)
                foreign.after(share.foreign)
                overrun.after(share.overrun)
            memory = attrs.evolve(device.memory, foreign=foreign.told, overrun=overrun.told)
            devices.append(attrs.evolve(device, memory=memory))
        return attrs.evolve(status, gpu_devices=tuple(devices))

    def _attributed(self, uses: Sequence[DeviceUse]) -> _Attributed:
        """Blocks."""
        states = [state for state in read_states(self._state_dir) if isinstance(state, GroupState)]
        leaders = {state.pid: seat_on_record(state) or _NOBODY for state in states}
        seats = frozenset(leaders.values())
        if not uses or not self._sees_all_pids():
            return _Attributed(seats=seats)
        by_device = {(use.type, use.index): use for use in uses}
        found = owners({pid for use in by_device.values() for pid in use.by_process}, leaders)
        owned = {pid: None if leader is None else leaders[leader] for pid, leader in found.items()}
        return _Attributed(by_device=by_device, owned=owned, seats=seats)

    def _claims(self, running: frozenset[SeatKey]) -> Mapping[SeatKey, Mapping[int, int]] | None:
        """What each seat claims here. What runs within Ray has no process on record: Ray holds its memory."""
        assigned = self._assigned()
        if not assigned.synced:
            return None
        found: dict[SeatKey, dict[int, int]] = {}
        for key, instance in assigned.state.instances.items():
            for member in members_on(instance, assigned.worker_id):
                assert instance.placement is not None  # it has members
                seat = (key, member)
                of_seat = found.setdefault(seat if seat in running else _NOBODY, {})
                for index, size in instance.placement.share(member).claim.vram.items():
                    of_seat[index] = of_seat.get(index, 0) + size
        return found


@attrs.frozen(kw_only=True)
class _Attributed:
    """What processes hold by the type and index of the device, whose they are, and who has a process on record."""

    by_device: Mapping[tuple[str, int], DeviceUse] = attrs.field(factory=dict)
    owned: Mapping[int, SeatKey | None] = attrs.field(factory=dict)
    seats: frozenset[SeatKey] = frozenset()

    @property
    def held(self) -> Mapping[SeatKey, Mapping[int, int]]:
        """What each seat holds, by the index of the device."""
        found: dict[SeatKey, dict[int, int]] = {}
        for use in self.by_device.values():
            for pid, size in use.by_process.items():
                if (seat := self.owned.get(pid)) is not None:
                    of_seat = found.setdefault(seat, {})
                    of_seat[use.index] = of_seat.get(use.index, 0) + size
        return found


def _on(index: int, claims: Mapping[SeatKey, Mapping[int, int]]) -> Mapping[SeatKey, int]:
    return {seat: held.get(index, 0) for seat, held in claims.items()}

"""Tells the server that this worker is alive (heartbeats), and its status when that changes."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

import attrs
import trio

from gpustack.domain.load import disk_loads, is_near, steady_part
from gpustack.domain.worker import WorkerStatus
from gpustack.errors import Forbidden, GpustackError, NotFound, Unauthorized
from gpustack.nursery.limiter import threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.remote.server_client import HeartbeatAnswer
from gpustack.worker.membership import Member, Membership

log = logging.getLogger(__name__)

_TRY_AGAIN = 2.0
_SHORTEST, _LONGEST = 0.1, 60.0
"""Bounds of the interval that the server asks for, in seconds."""
_ANSWER_WITHIN = (4.0, 15.0)
"""Bounds of the seconds that an answer may take, which is the interval. Several servers share this time."""
_threads = threads("address lookups", 1)


@attrs.frozen
class Heartbeat:
    """A service: a small POST each interval, with jitter so that a thousand workers do not send at the same time."""

    _membership: Membership
    _rng: random.Random
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("heartbeat"))
    name: str = "heartbeat"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            member = await self._membership.joined()
            await self._beat_as(member)

    async def _beat_as(self, member: Member) -> None:
        """Send heartbeats until the server does not know us any more."""
        interval = _bounded(member.heartbeat_interval)
        while self._membership.member is member:
            pause = interval * (0.9 + 0.2 * self._rng.random())
            sooner = min(interval, _TRY_AGAIN) * (0.5 + self._rng.random())
            with self._faults.row("beat") as attempt:
                try:
                    within = min(max(interval, _ANSWER_WITHIN[0]), _ANSWER_WITHIN[1])
                    beat = await self._membership.client.heartbeat(member.worker_id, within=within)
                    interval = _bounded(beat.interval)
                    await self._take_in(beat)
                except (Unauthorized, Forbidden, NotFound):
                    self._membership.void(member)
                    return
                except GpustackError as error:
                    log.warning("A heartbeat did not arrive: reason=%s", error)
                    pause = sooner
            if attempt.fault is not None:
                pause = sooner
            with trio.move_on_after(pause):
                await self._membership.left(member)

    async def _take_in(self, beat: HeartbeatAnswer) -> None:
        """Use what the server told in its answer. A fault in this is not one of the heartbeat, which has arrived."""
        with self._faults.row("the servers told"):
            await self._membership.learn(beat.servers)
        with self._faults.row("the credential told"):
            await self._membership.renew(beat.credential)


def _bounded(interval: float) -> float:
    return min(max(interval, _SHORTEST), _LONGEST)


_REPORT_AT_LEAST_EVERY = 60.0
_NOTABLE = 5.0
"""Percentage points: a load that changed by less is not worth a write on the server."""


@attrs.frozen
class _Measurement:
    status: WorkerStatus
    address: str
    at: float


@attrs.frozen
class _StatusMessage:
    member: Member
    measured: _Measurement


@attrs.frozen
class StatusReporter:
    """A service: measures each ``period``, and sends the status when a person or the scheduler would notice a change.

    After joining it is sent at once: nothing is placed here before the server knows what there is.
    """

    _membership: Membership
    _measure: Callable[[], Awaitable[WorkerStatus]]
    _address: Callable[[], str]
    """May block: it is called in a thread."""
    period: float = 10.0
    """Seconds between two measurements."""
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("status"))
    name: str = "status"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        sent: _StatusMessage | None = None
        measured = await self._measure_again(None)  # before joining, so that no second is lost afterwards
        while True:
            if trio.current_time() - measured.at >= self.period:
                measured = await self._measure_again(measured)
            now = _StatusMessage(await self._membership.joined(), measured)
            pause = measured.at + self.period - trio.current_time()
            if sent is None or _differs(sent, now):
                if await self._send(now):
                    sent = now
                else:
                    pause = _TRY_AGAIN
            with trio.move_on_after(max(pause, 0.0)):
                await self._membership.left(now.member)

    async def _measure_again(self, before: _Measurement | None) -> _Measurement:
        """The machine as it is now; where measuring fails, as it was ``before``."""
        while True:
            found = before
            with self._faults.row("a look at this machine"):
                status = await self._measure()
                found = _Measurement(status, await _threads.run(self._address), trio.current_time())
            if found is not None:
                return found if found is not before else attrs.evolve(found, at=trio.current_time())
            await trio.sleep(_TRY_AGAIN)

    async def _send(self, now: _StatusMessage) -> bool:
        member, measured = now.member, now.measured
        arrived = False
        with self._faults.row("telling the server"):
            try:
                await self._membership.client.put_status(
                    member.worker_id, measured.status, ip=measured.address
                )
                arrived = True
            except (Unauthorized, Forbidden, NotFound):
                self._membership.void(member)
            except GpustackError as error:
                log.warning("The status did not arrive: reason=%s", error)
        return arrived


def _differs(sent: _StatusMessage, now: _StatusMessage) -> bool:
    before, after = sent.measured, now.measured
    if sent.member is not now.member or before.address != after.address:
        return True
    return after.at - before.at >= _REPORT_AT_LEAST_EVERY or notable(before.status, after.status)


def notable(before: WorkerStatus, after: WorkerStatus) -> bool:
    """Whether anything differs, apart from the uptime, loads that changed by less than 5 percentage points, and free
    space that placement would not see differently."""
    if steady_part(before) != steady_part(after):
        return True
    if not is_near(disk_loads(before), disk_loads(after)):
        return True
    return any(_load_changed(was, now) for was, now in zip(_loads(before), _loads(after), strict=True))


def _load_changed(was: float | None, now: float | None) -> bool:
    if was is None or now is None:
        return was is not now
    return abs(was - now) > _NOTABLE


def _loads(status: WorkerStatus) -> list[float | None]:
    return [
        status.cpu.utilization_rate,
        status.memory.utilization_rate,
        *(None if d.core is None else d.core.utilization_rate for d in status.gpu_devices),
        *(d.memory.utilization_rate for d in status.gpu_devices),
    ]

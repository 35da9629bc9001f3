"""Tells the server that this worker lives, and what its hardware looks like when that changes."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

import attrs
import trio

from gpustack.domain.worker import WorkerStatus
from gpustack.errors import Conflict, Forbidden, GpustackError, NotFound, Unauthorized
from gpustack.nursery.ticker import ticks
from gpustack.worker.membership import Membership

log = logging.getLogger(__name__)


@attrs.frozen
class Heartbeat:
    """A tiny post each interval, with jitter so that a thousand workers do not beat as one."""

    _membership: Membership
    _rng: random.Random
    name: str = "heartbeat"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            member = await self._membership.joined()
            interval = member.heartbeat_interval
            try:
                with trio.fail_after(interval):
                    interval = await self._membership.client.heartbeat(member.worker_id)
            except (Unauthorized, Forbidden, NotFound):
                log.warning("The server does not know this worker any more, joining again")
                self._membership.void()
                continue
            except trio.TooSlowError:
                log.warning("No answer to a heartbeat within %.0f s", interval)
            except GpustackError as error:
                log.warning("A heartbeat did not arrive: reason=%s", error)
            await trio.sleep(interval * (0.9 + 0.2 * self._rng.random()))


_MEASURE_EVERY = 10.0
_SAY_AT_LEAST_EVERY = 60.0
_NOTABLE = 0.05
"""A load that moved by less than this share of the whole is not worth a write on the server."""


@attrs.frozen
class StatusPush:
    """Measures, and puts the status when something changed that a person or the scheduler would notice."""

    _membership: Membership
    _measure: Callable[[], Awaitable[WorkerStatus]]
    _address: Callable[[], str]
    name: str = "status"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        said: tuple[int, str, WorkerStatus] | None = None
        said_at = 0.0
        async for _ in ticks(_MEASURE_EVERY):
            member = await self._membership.joined()
            status = await self._measure()
            address = self._address()
            aged = trio.current_time() - said_at >= _SAY_AT_LEAST_EVERY
            same = (
                said is not None and said[:2] == (member.worker_id, address) and not notable(said[2], status)
            )
            if same and not aged:
                continue
            try:
                await self._membership.client.put_status(member.worker_id, status, ip=address)
            except (Conflict, GpustackError) as error:
                log.warning("The status did not arrive: reason=%s", error)
                continue
            said, said_at = (member.worker_id, address, status), trio.current_time()


def notable(before: WorkerStatus, after: WorkerStatus) -> bool:
    """Whether anything differs but loads that hardly moved and the uptime."""
    if _still(before) != _still(after):
        return True
    return any(
        was is None or now is None or abs(was - now) > 100 * _NOTABLE
        for was, now in zip(_loads(before), _loads(after), strict=True)
        if was is not now
    )


def _still(status: WorkerStatus) -> WorkerStatus:
    """The status without what moves all the time."""
    return attrs.evolve(
        status,
        cpu=attrs.evolve(status.cpu, utilization_rate=None),
        memory=attrs.evolve(status.memory, used=None, utilization_rate=None),
        swap=attrs.evolve(status.swap, used=None, utilization_rate=None),
        filesystem=tuple(attrs.evolve(f, used=None, free=None, available=None) for f in status.filesystem),
        uptime=attrs.evolve(status.uptime, uptime=None, boot_time=None),
        gpu_devices=tuple(
            attrs.evolve(
                d,
                temperature=None,
                core=attrs.evolve(d.core, utilization_rate=None),
                memory=attrs.evolve(d.memory, used=None, utilization_rate=None),
            )
            for d in status.gpu_devices
        ),
    )


def _loads(status: WorkerStatus) -> list[float | None]:
    return [
        status.cpu.utilization_rate,
        status.memory.utilization_rate,
        *(d.core.utilization_rate for d in status.gpu_devices),
        *(d.memory.utilization_rate for d in status.gpu_devices),
    ]

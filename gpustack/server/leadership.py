"""Which of the servers on one database leads: it alone runs the control loops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import attrs
import trio

from gpustack.errors import Unavailable
from gpustack.nursery.restart import RestartPolicy
from gpustack.nursery.service import FirstTaskStatus, Service, supervise
from gpustack.nursery.wake import AsyncValue
from gpustack.store.lease import LEADER, LeaseTerm
from gpustack.store.store import Store

log = logging.getLogger(__name__)

TTL = 6.0
"""Seconds for which a lease is taken. After a leader dies, another leads within this time and ``LOOK_EVERY``."""
LOOK_EVERY = 2.0
_GIVE_UP_WITHIN = 1.0

ServicesOfTerm = Callable[[LeaseTerm | None, Callable[[], None]], Sequence[Service]]
"""Makes the loops of one term. They call the function when a write tells that the term is over."""


class Lease(Protocol):
    """The right to lead, held by one server at a time. Both methods raise ``Unavailable``."""

    async def take(self) -> LeaseTerm | None:
        """Take or prolong it for ``TTL`` seconds from now; ``None`` while another server holds it."""

    async def end(self, term: LeaseTerm) -> None:
        """Release it before its time is up."""


@attrs.frozen
class StoreLease:
    """The lease in the shared database."""

    _store: Store
    _holder: str

    async def take(self) -> LeaseTerm | None:
        return await self._store.try_lease(LEADER, self._holder, TTL)

    async def end(self, term: LeaseTerm) -> None:
        await self._store.end_lease(term, self._holder)


@attrs.define(eq=False, repr=False)
class Leadership:
    """Takes the lease when nobody holds it, prolongs it, and runs the loops while it is held.

    They are cancelled when it is lost, or its time is up before it could be prolonged. Safety does not depend on that:
    what they write carries their term, and is refused once there is a later one.
    """

    _lease: Lease | None
    """``None`` where there can be only one server: it always leads."""
    _make_services: ServicesOfTerm
    _restart: RestartPolicy
    term: LeaseTerm | None = None
    leads: bool = False
    standing: AsyncValue[bool | None] = attrs.field(factory=lambda: AsyncValue[bool | None](None))
    """Whether this server leads, for who has to hear of it; ``None`` until it does for the first time. It stays true
    where the daemon stops or hands over."""
    name: str = "leader"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        started = FirstTaskStatus(task_status.started)
        if self._lease is None:
            await self._run_services(None, trio.CancelScope(), started)
            return
        while True:
            until = trio.current_time() + TTL
            term = await self._take(self._lease)
            if term is None:
                started.started()
                await trio.sleep(LOOK_EVERY)
                continue
            try:
                if trio.current_time() < until:  # else the answer came too late: another may hold it by now
                    log.info("This server leads now: term=%d", term.number)
                    await self._lead(self._lease, term, until, started)
                    log.warning("This server leads no more: term=%d", term.number)
            finally:
                await _give_up(self._lease, term)

    async def _take(self, lease: Lease) -> LeaseTerm | None:
        try:
            return await lease.take()
        except Unavailable as error:
            log.debug("The lease cannot be asked for: reason=%s", error)
            return None

    async def _lead(self, lease: Lease, term: LeaseTerm, until: float, started: FirstTaskStatus) -> None:
        """Run the loops until the lease is lost, or not prolonged in time."""
        ours = trio.CancelScope(deadline=until)
        async with trio.open_nursery() as nursery:

            async def keep() -> None:
                await self._keep(lease, term, ours)
                ours.cancel()

            nursery.start_soon(keep, name="leader/lease")
            await self._run_services(term, ours, started)
            nursery.cancel_scope.cancel()

    async def _keep(self, lease: Lease, term: LeaseTerm, ours: trio.CancelScope) -> None:
        """Prolong the lease; returns when another server holds it."""
        while True:
            await trio.sleep(LOOK_EVERY)
            until = trio.current_time() + TTL
            try:
                renewed = await lease.take()
            except Unavailable as error:
                log.debug("The lease cannot be prolonged: reason=%s", error)
                continue  # until its time is up, nobody else can take it
            if renewed != term:
                return
            ours.deadline = until

    async def _run_services(
        self, term: LeaseTerm | None, ours: trio.CancelScope, started: FirstTaskStatus
    ) -> None:
        """Run the loops until ``ours`` is cancelled."""
        self.term, self.leads = term, True
        self.standing.set(True)
        try:
            with ours:
                async with trio.open_nursery() as nursery:
                    for service in self._make_services(term, ours.cancel):
                        start = partial(supervise, service, restart=self._restart)
                        await nursery.start(start, name=f"leader/{service.name}")
                    started.started()
            self.standing.set(False)
        finally:
            self.term, self.leads = None, False

    def __repr__(self) -> str:
        if not self.leads:
            return "<Leadership: another server leads, or none>"
        return f"<Leadership: leads{'' if self.term is None else f' in term {self.term.number}'}>"


async def _give_up(lease: Lease, term: LeaseTerm) -> None:
    """Release the lease so that the next leader need not wait; bounded, not cancellable. A failure is harmless."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _GIVE_UP_WITHIN):
        try:
            await lease.end(term)
        except Unavailable as error:
            log.debug("The lease was not given up: reason=%s", error)

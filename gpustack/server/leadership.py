"""Of all servers on one database one leads: it alone runs the loops that must run once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
import trio

from gpustack.errors import Unavailable
from gpustack.nursery.restart import RestartPolicy
from gpustack.nursery.service import FirstTaskStatus, Service, supervise
from gpustack.store.lease import LEADER, LeaseTerm
from gpustack.store.store import Store

log = logging.getLogger(__name__)

TTL = 6.0
"""Seconds for which a lease is taken: a leader that dies is followed by another this much later, and a look."""
LOOK_EVERY = 2.0
_GIVE_UP_WITHIN = 1.0

Reign = Callable[[LeaseTerm | None, Callable[[], None]], Sequence[Service]]
"""Makes the loops of one term; they call the function when they learn that it is over."""


class Lease(Protocol):
    """The right to lead, which one server has at a time. Both raise ``Unavailable``."""

    async def take(self) -> LeaseTerm | None:
        """Take it or prolong it for ``TTL`` seconds from now; ``None`` while somebody else has it."""

    async def end(self, term: LeaseTerm) -> None:
        """Let it go before its time."""


@attrs.frozen
class StoreLease:
    """The lease that is kept in the database of all."""

    _store: Store
    _holder: str

    async def take(self) -> LeaseTerm | None:
        return await self._store.try_lease(LEADER, self._holder, TTL)

    async def end(self, term: LeaseTerm) -> None:
        await self._store.end_lease(term, self._holder)


@attrs.define(eq=False, repr=False)
class Leadership:
    """Takes the lease when nobody has it and keeps it; the loops run for as long as it is sure to be ours.

    They are cancelled at once when it is lost, or its time is up before it could be prolonged. That is for order only:
    what they write carries their term, and is refused as soon as somebody else has a later one.
    """

    _lease: Lease | None
    """``None`` where there is one server: it leads always."""
    _reign: Reign
    _restart: RestartPolicy
    term: LeaseTerm | None = None
    leads: bool = False
    name: str = "leader"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        started = FirstTaskStatus(task_status.started)
        if self._lease is None:
            await self._rule(None, trio.CancelScope(), started)
            return
        while True:
            until = trio.current_time() + TTL
            term = await self._take(self._lease)
            if term is None:
                started.started()
                await trio.sleep(LOOK_EVERY)
                continue
            try:
                if trio.current_time() < until:  # else the answer was so slow that another may have it by now
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
        """Rule until the lease is lost, or not prolonged in time."""
        ours = trio.CancelScope(deadline=until)
        async with trio.open_nursery() as nursery:

            async def keep() -> None:
                await self._keep(lease, term, ours)
                ours.cancel()

            nursery.start_soon(keep, name="leader/lease")
            await self._rule(term, ours, started)
            nursery.cancel_scope.cancel()

    async def _keep(self, lease: Lease, term: LeaseTerm, ours: trio.CancelScope) -> None:
        """Prolong the lease for as long as it is ours."""
        while True:
            await trio.sleep(LOOK_EVERY)
            until = trio.current_time() + TTL
            try:
                renewed = await lease.take()
            except Unavailable as error:
                log.debug("The lease cannot be prolonged: reason=%s", error)
                continue  # until its time is up, nobody else can have it
            if renewed != term:
                return
            ours.deadline = until

    async def _rule(self, term: LeaseTerm | None, ours: trio.CancelScope, started: FirstTaskStatus) -> None:
        """Run the loops until ``ours`` is cancelled."""
        self.term, self.leads = term, True
        try:
            with ours:
                async with trio.open_nursery() as nursery:
                    for service in self._reign(term, ours.cancel):
                        await nursery.start(self._supervised, service, name=f"leader/{service.name}")
                    started.started()
        finally:
            self.term, self.leads = None, False

    async def _supervised(self, service: Service, *, task_status: trio.TaskStatus[Any]) -> None:
        await supervise(service, restart=self._restart, task_status=task_status)

    def __repr__(self) -> str:
        if not self.leads:
            return "<Leadership: another server leads, or none>"
        return f"<Leadership: leads{'' if self.term is None else f' in term {self.term.number}'}>"


async def _give_up(lease: Lease, term: LeaseTerm) -> None:
    """So that the next one need not wait. Nothing depends on it."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _GIVE_UP_WITHIN):
        try:
            await lease.end(term)
        except Unavailable as error:
            log.debug("The lease was not given up: reason=%s", error)

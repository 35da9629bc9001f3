"""Audit events on their way to the store: repeated ones are counted, and lost ones are reported as lost."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import trio

from gpustack.domain.audit import AuditEvent, AuditOutcome
from gpustack.errors import GpustackError, Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import Wake
from gpustack.server.row_write import flush_rows, read_spool, write_spool
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

WINDOW = 60.0
"""Seconds within which repeats of an event are counted instead of stored."""
MOST_KINDS = 100
"""Kinds of events counted apart within a window; more are counted together. This bounds what a flood can write: about
150 000 events a day."""
MOST_WAITING = 10_000
_AT_ONCE = 200
"""Events in one transaction: other writes wait meanwhile."""
_FLUSH_EVERY = 1.0
_FLUSH_WITHIN = 3.0
_LOOK_EVERY = 10.0
_OWN_PER_WINDOW = 120
"""Events of a user who is no administrator within a window; further ones are counted instead of stored."""
_SWEEP_EVERY = 3600.0
_SWEPT_AT_ONCE = 500
CLUSTER_EVENTS_KEPT = timedelta(days=7)
"""How long it is kept what happened to instances, models, workers and files."""
_BETWEEN_SWEEPS = 0.1

_Key = tuple[object, ...]


@attrs.define
class _RepeatCount:
    """Events of one kind within a window: the first is stored, the others are counted."""

    until: float
    latest: AuditEvent
    since: datetime
    again: int = 0


@attrs.define(eq=False, repr=False)
class AuditTrail:
    """Owns the events that are not stored yet: those of requests that changed no record, such as refusals and failures.
    (An event of a change is written in the transaction of the change.)

    Adding never waits. Events are stored within seconds; while the database is away they wait here, and go to the spool
    folder when the daemon stops. A process that is killed loses those of the last seconds.
    """

    _store: Store
    _now: Callable[[], datetime]
    _monotonic: Callable[[], float]
    _spool: Path | None = None
    """The folder for events that a stopping daemon could not store; the next one stores them."""
    _keep_for: timedelta | None = None
    """``None``: for ever."""
    _waiting: deque[AuditEvent] = attrs.field(factory=deque)
    _repeats: dict[_Key, _RepeatCount] = attrs.field(factory=dict)
    _own: dict[int, tuple[float, int]] = attrs.field(factory=dict)
    _asked: Wake = attrs.field(factory=Wake)
    _lost: int = 0
    name: str = "audit"

    # -- adding: only from the Trio thread

    def add(self, event: AuditEvent) -> None:
        """Take an event. Never waits; beyond ``MOST_WAITING`` it is counted as lost."""
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
            return
        self._waiting.append(event)
        self._asked.wake()

    def add_counted(self, event: AuditEvent) -> None:
        """Take an event that anybody may cause at will: the first of its kind is stored, the others within ``WINDOW``
        are one event with their ``count``."""
        key: _Key = (
            event.action,
            event.outcome,
            event.status,
            event.actor_id,
            event.actor_name,
            event.address,
            event.target_type,
            event.target_id,
        )
        if key not in self._repeats and len(self._repeats) >= MOST_KINDS:
            key = (event.action, event.outcome, event.status)
            event = attrs.evolve(
                event,
                actor_id=None,
                actor_name="",
                address="",
                target_id=None,
                target_name="",
                details={"from": "many addresses or names at once"},
            )
        known = self._repeats.get(key)
        if known is None:
            self._repeats[key] = _RepeatCount(self._monotonic() + WINDOW, event, event.at)
            self.add(event)
            return
        known.again += 1
        known.latest = event
        if known.again == 1:
            known.since = event.at

    def has_room_for(self, user_id: int) -> bool:
        """Whether this user's next change gets an event of its own. Each call counts as one change."""
        now = self._monotonic()
        until, made = self._own.get(user_id, (0.0, 0))
        if until <= now:
            self._own = {key: one for key, one in self._own.items() if one[0] > now}
            until, made = now + WINDOW, 0
        self._own[user_id] = (until, made + 1)
        return made < _OWN_PER_WINDOW

    # -- the service

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            await self.collect()
            await self.flush()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep)
                await self._bring()
        finally:
            self._tell_of_repeats(over=True)
            await self.flush()
            if self._lost:
                _tell_of_loss(self._lost)
                # In front: this is one event more than may wait, and the next daemon drops the last for it.
                self._waiting.appendleft(self._of_loss(self._lost))
                self._lost = 0
            self._leave_behind()

    async def _bring(self) -> None:
        while True:
            await self.collect()
            self._tell_of_repeats(over=False)
            await self.flush()
            await trio.sleep(_FLUSH_EVERY)
            if not self._waiting:
                await self._asked.wait(_LOOK_EVERY)

    def _tell_of_repeats(self, *, over: bool) -> None:
        now = self._monotonic()
        for key, repeat in list(self._repeats.items()):
            if repeat.until > now and not over:
                continue
            del self._repeats[key]
            if repeat.again:
                more = {"count": repeat.again, "since": repeat.since.isoformat()}
                event = attrs.evolve(repeat.latest, details={**repeat.latest.details, **more})
                if not over:  # it may go on: the next of its kind is counted as well
                    self._repeats[key] = _RepeatCount(now + WINDOW, event, event.at)
                self.add(event)

    async def flush(self) -> None:
        """Write all events to the store; while it is away they wait here for the next time.

        Not cancellable, but ends within ``_FLUSH_WITHIN`` seconds.
        """
        deadline = trio.current_time() + _FLUSH_WITHIN
        while self._waiting or self._lost:
            if not await self._flush_some(deadline):
                return

    async def _flush_some(self, deadline: float) -> bool:
        """Write the oldest events in one transaction; tells whether to go on with the next."""
        taken = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
        lost, self._lost = self._lost, 0
        events = dict(enumerate([*taken, self._of_loss(lost)] if lost else taken))
        # No event that the store cannot take is tried again, so this lives for one flush.
        faults = Quarantine("audit", passing=(Unavailable,))
        result = await flush_rows(
            self._store, events, lambda tx, some: insert(tx, some.values()), faults, deadline=deadline
        )
        left = dict(result.left)
        if result.error is not None:
            log.warning("Audit events wait for the database: waiting=%d reason=%s", len(taken), result.error)
        elif not result.timed_out:
            self._lost += len(left)  # they hold what no database takes
            left.clear()
        if lost and len(taken) in left:
            self._lost += lost
            del left[len(taken)]
        elif lost:
            _tell_of_loss(lost)
        self._waiting.extendleft(reversed([event for _, event in sorted(left.items())]))
        if result.timed_out:
            log.warning("Audit events take long to store: waiting=%d", len(self._waiting))
        return not left and not result.timed_out

    def _of_loss(self, count: int) -> AuditEvent:
        return AuditEvent(
            at=self._now(),
            action="audit.lost",
            outcome=AuditOutcome.FAILED,
            status=503,
            details={"count": count},
        )

    # -- what outlives a daemon

    async def collect(self) -> None:
        """Take over what daemons before this one left behind."""
        if self._spool is not None:
            for event in read_spool(self._spool, AuditEvent):
                self.add(event)

    def _leave_behind(self) -> None:
        if not self._waiting:
            return
        if self._spool is None:
            log.error("Audit events were lost: count=%d", len(self._waiting))
            return
        write_spool(self._spool, self._waiting)
        self._waiting.clear()

    # -- the end of old ones

    async def _sweep(self) -> None:
        faults = Quarantine("audit")
        while True:
            with faults.row("old events"):
                try:
                    if self._keep_for is not None:
                        await self.forget(self._now() - self._keep_for)
                    await self._forget_cluster_events(self._now() - CLUSTER_EVENTS_KEPT)
                except GpustackError as error:
                    log.warning("Old events stay for now: reason=%s", error)
            await trio.sleep(_SWEEP_EVERY)

    async def forget(self, before: datetime) -> None:
        """Delete older events, some in each transaction so that other writes come between. Raises ``Unavailable``."""
        while True:
            gone = await self._store.write(lambda tx: tx.forget_events(before, _SWEPT_AT_ONCE))
            if gone < _SWEPT_AT_ONCE:
                return
            await trio.sleep(_BETWEEN_SWEEPS)

    async def _forget_cluster_events(self, before: datetime) -> None:
        await self._store.write(lambda tx: tx.forget_cluster_events(before))

    def __repr__(self) -> str:
        return f"<AuditTrail: {len(self._waiting)} events to store, {len(self._repeats)} kinds counted>"


def _tell_of_loss(count: int) -> None:
    """Log a loss once, when its event is stored or left."""
    log.error("Audit events were lost, for the database took none for too long: count=%d", count)


def insert(tx: Tx, events: Iterable[AuditEvent]) -> None:
    """Write events in the caller's transaction."""
    for event in events:
        tx.insert(event)

"""What this worker reports of its instances and files: carried to the server in order, until it arrives."""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import trio

from gpustack.domain.artifact import ModelSource
from gpustack.domain.instance import ModelInstance, status_of
from gpustack.domain.lifecycle import InstanceState, Party, allowed
from gpustack.domain.report import FileReport, InstanceReport
from gpustack.errors import BadRequest, Conflict, Forbidden, GpustackError, Invalid, NotFound, Unauthorized
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import Wake
from gpustack.remote.http import RemoteError
from gpustack.text import storable
from gpustack.worker.membership import Membership

log = logging.getLogger(__name__)

_MOST_QUEUED = 10_000
_TRIES = 30
"""How often a report is sent to a server that answers each time with a fault of its own, before it is dropped."""
_LAST_DELIVERY_WITHIN = 2.0
"""Seconds for a last try when the daemon stops."""
_FAULTS = 5
"""How often a report is tried that cannot even be sent, before it is dropped."""


@attrs.frozen
class _QueuedInstanceReport:
    instance_id: int
    report: InstanceReport

    @property
    def row(self) -> object:
        return "instance", self.instance_id, self.report.member

    def __str__(self) -> str:
        what = "gone" if self.report.gone else self.report.state or "numbers only"
        member = f" member {self.report.member}" if self.report.member else ""
        return f"instance {self.instance_id}{member}, {what}"

    def is_of(self, instance_id: int, member: int) -> bool:
        return (self.instance_id, self.report.member) == (instance_id, member)


@attrs.frozen
class _QueuedFileReport:
    source: ModelSource
    local_dir: str
    report: FileReport

    @property
    def row(self) -> object:
        return "files", self.source.index, self.local_dir

    def __str__(self) -> str:
        return f"files of {self.source.readable}, {self.report.state or 'progress only'}"


@attrs.frozen
class _QueuedRecordReport:
    """Of a record of files that must not be made anew where it is gone."""

    file_id: int
    report: FileReport

    @property
    def row(self) -> object:
        return "file", self.file_id

    def __str__(self) -> str:
        return f"file {self.file_id}{', gone' if self.report.gone or self.report.evicted else ''}"


_QueuedReport = _QueuedInstanceReport | _QueuedFileReport | _QueuedRecordReport


@attrs.define(eq=False, repr=False)
class ReportQueue:
    """A service: a queue with one sender. Adding never waits.

    Reports of one instance or file arrive in the order in which they were added; while the server is away a newer one
    of the same state replaces the one before it. A report that the server refuses (the instance is gone or moved, or
    the state is not allowed there) is dropped: the assignments show what is wanted now. A fault in sending that nobody
    foresaw holds up the reports of the same instance or file only; after a few tries that report is dropped. When the
    service is cancelled it tries once to deliver what is left, for 2 s at most.
    """

    _membership: Membership
    _rng: random.Random
    retry_after: float = 1.0
    """Seconds, give or take half."""
    _queue: deque[_QueuedReport] = attrs.field(factory=deque)
    _sending: _QueuedReport | None = None
    _wake: Wake = attrs.field(factory=Wake)
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("reports"))
    name: str = "reports"

    def add_instance(self, instance_id: int, report: InstanceReport) -> None:
        """Queue a report of an instance."""
        if report.state_message is not None:  # it may name files and quote programs
            report = attrs.evolve(report, state_message=storable(report.state_message))
        at = self._last(
            lambda one: isinstance(one, _QueuedInstanceReport) and one.is_of(instance_id, report.member)
        )
        last = None if at is None else self._queue[at]
        if at is not None and isinstance(last, _QueuedInstanceReport) and _continues(last.report, report):
            self._queue[at] = _QueuedInstanceReport(instance_id, report.over(last.report))
        else:
            self._add(_QueuedInstanceReport(instance_id, report))
        self._wake.wake()

    def add_file(self, source: ModelSource, local_dir: str, report: FileReport) -> None:
        """Queue a report of the files of a source; the server makes a record of them if it has none."""
        if report.state_message is not None:
            report = attrs.evolve(report, state_message=storable(report.state_message))
        key = (source, local_dir)
        at = self._last(lambda one: isinstance(one, _QueuedFileReport) and (one.source, one.local_dir) == key)
        last = None if at is None else self._queue[at]
        if at is not None and isinstance(last, _QueuedFileReport) and last.report.state is report.state:
            self._queue[at] = _QueuedFileReport(source, local_dir, report)
        else:
            self._add(_QueuedFileReport(source, local_dir, report))
        self._wake.wake()

    def add_record(self, file_id: int, report: FileReport) -> None:
        """Queue a report of one record of files: that they have been removed, or were used."""
        if report.evicted is not None:
            report = attrs.evolve(report, evicted=storable(report.evicted))
        self._add(_QueuedRecordReport(file_id, report))
        self._wake.wake()

    def has_pending(self, instance_id: int, member: int = 0) -> bool:
        """Whether a report of the instance's member has not arrived yet."""
        return any(
            isinstance(one, _QueuedInstanceReport) and one.is_of(instance_id, member) for one in self._queue
        )

    def has_removal(self, instance_id: int, member: int = 0) -> bool:
        """Whether the report that the member is gone has not arrived yet."""
        return any(
            isinstance(one, _QueuedInstanceReport) and one.is_of(instance_id, member) and one.report.gone
            for one in self._queue
        )

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            while True:
                await self._deliver_all()
                await self._wake.wait(self._faults.due_in())
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_DELIVERY_WITHIN):
                await self._deliver_once()

    async def _deliver_all(self) -> None:
        """Deliver until nothing is left but reports that are set aside after a fault."""
        tries = 0
        while (one := self._next()) is not None:
            tries += 1
            if await self._attempt(one, tries):
                tries = 0
            elif not self._faults.holds(one.row):
                await trio.sleep(self.retry_after * (0.5 + self._rng.random()))

    async def _deliver_once(self) -> None:
        while (one := self._next()) is not None:
            if not await self._attempt(one, 1) and not self._faults.holds(one.row):
                return

    def _next(self) -> _QueuedReport | None:
        """The oldest report that is not set aside."""
        if self._faults.due_in() < math.inf:
            self._faults.keep_only({one.row for one in self._queue})
        return next((one for one in self._queue if not self._faults.holds(one.row)), None)

    async def _attempt(self, one: _QueuedReport, tries: int) -> bool:
        """Send one and take it from the queue; false when it stays there for another try."""
        done, self._sending = False, one
        try:
            with self._faults.row(one.row) as attempt:
                done = await self._deliver(one, tries)
        finally:
            self._sending = None
        if attempt.fault is not None and attempt.fault.streak >= _FAULTS:
            log.error("A report cannot be sent and is dropped: report=%s", one)
            self._faults.forget(one.row)
            done = True
        if done:
            self._queue.remove(one)
        return done

    async def _deliver(self, one: _QueuedReport, tries: int) -> bool:
        """Send one; false when it is worth another try."""
        member = await self._membership.joined()
        client = self._membership.client
        try:
            if isinstance(one, _QueuedInstanceReport):
                await client.report_instance(one.instance_id, one.report)
            elif isinstance(one, _QueuedRecordReport):
                await client.report_file(one.file_id, one.report)
            else:
                record = await client.ensure_file(member.worker_id, one.source, one.local_dir)
                await client.report_file(record.id, one.report)
        except Unauthorized:
            self._membership.void(member)
            return False
        except (NotFound, Forbidden, Conflict, BadRequest, Invalid) as error:
            log.info("The server did not take a report: report=%s reason=%s", one, error)
        except RemoteError as error:
            log.info("Reports wait for the server: waiting=%d reason=%s", len(self._queue), error)
            return False
        except GpustackError as error:
            # It answers, so the fault may lie in this very report, which must not hold up all others for ever.
            log.warning("The server failed to take a report: report=%s reason=%s", one, error)
            return tries >= _TRIES
        return True

    def _last(self, matches: Callable[[_QueuedReport], bool]) -> int | None:
        """The index of the last such report that may still be replaced: the one being sent may not."""
        for at in range(len(self._queue) - 1, 0, -1):
            if self._queue[at] is not self._sending and matches(self._queue[at]):
                return at
        return None

    def _add(self, one: _QueuedReport) -> None:
        if len(self._queue) >= _MOST_QUEUED:
            log.error(
                "The server has been away too long, the oldest report is dropped: waiting=%d", _MOST_QUEUED
            )
            del self._queue[1 if self._queue[0] is self._sending else 0]
        self._queue.append(one)

    def __repr__(self) -> str:
        return f"<ReportQueue: {len(self._queue)} waiting>"


def _continues(last: InstanceReport, report: InstanceReport) -> bool:
    """Whether ``report`` only adds to ``last``. One without a state is about the state that the record has."""
    if last.gone or report.gone or report.attempt not in (None, last.attempt):
        return False
    return report.state in (None, last.state)


@attrs.define(eq=False)
class InstanceReporter:
    """Reports the states of one instance, by moves that ``domain/lifecycle.py`` allows."""

    _queue: ReportQueue
    _instance_id: int
    state: InstanceState
    """As reported last; at first as recorded."""
    _last: InstanceReport | None = None
    retrying: bool = False
    """Its engine failed last time: that it is started again is no news for the log before it works."""

    def report(self, state: InstanceState, message: str = "", **fields: Any) -> None:
        """Report a state, with fields of ``InstanceReport``. Never waits.

        Where the move from the state before is not allowed, ``INITIALIZING`` is reported in between, which may follow
        any state.
        """
        self._step_between(state)
        self._last = InstanceReport(state=state, state_message=message, **fields)
        self._queue.add_instance(self._instance_id, self._last)
        self.state = state

    def repeat(self, record: ModelInstance) -> None:
        """Report the last state again if the server's ``record`` shows another."""
        if self._last is not None and self.differs(record):
            self.state = record.state
            self._step_between(self._last.state or record.state)
            self._queue.add_instance(self._instance_id, self._last)
            self.state = self._last.state or record.state

    def differs(self, record: ModelInstance) -> bool:
        """Whether the record shows another state than was reported, with no report on its way."""
        return self.is_other(record) and not self._queue.has_pending(self._instance_id)

    def is_other(self, record: ModelInstance) -> bool:
        """Whether the record shows another state than was reported last."""
        return self._last is not None and record.state is not (self._last.state or self.state)

    def _step_between(self, state: InstanceState) -> None:
        if not allowed(self.state, state, Party.WORKER):
            between = InstanceReport(state=InstanceState.INITIALIZING, state_message="")
            self._queue.add_instance(self._instance_id, between)


@attrs.define(eq=False)
class FollowerReporter:
    """Reports how one follower of a gang fares in one attempt."""

    _queue: ReportQueue
    _instance_id: int
    _member: int
    attempt: int = 0
    _last: InstanceReport | None = None

    def report(self, state: InstanceState, message: str = "", **fields: Any) -> None:
        """Report a state, with fields of ``InstanceReport``. Never waits."""
        self._last = InstanceReport(
            member=self._member, attempt=self.attempt, state=state, state_message=message, **fields
        )
        self._queue.add_instance(self._instance_id, self._last)

    def repeat(self, record: ModelInstance) -> None:
        """Report the last state again if the server's ``record`` shows another."""
        if self._last is not None and self.differs(record):
            self._queue.add_instance(self._instance_id, self._last)

    def differs(self, record: ModelInstance) -> bool:
        """Whether the record shows another state of this attempt than was reported, with no report on its way."""
        return self.is_other(record) and not self._queue.has_pending(self._instance_id, self._member)

    def is_other(self, record: ModelInstance) -> bool:
        """Whether the record shows another state of this attempt than was reported last."""
        last = self._last
        if last is None or last.attempt != record.attempt:
            return False
        return status_of(record, self._member).state is not last.state

"""Carries what this worker says of instances and files to the server: in order, and until it arrives."""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Callable

import attrs
import trio

from gpustack.domain.artifact import ModelSource
from gpustack.domain.report import FileReport, InstanceReport
from gpustack.errors import BadRequest, Conflict, Forbidden, GpustackError, Invalid, NotFound, Unauthorized
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import Wake
from gpustack.remote.http import RemoteError
from gpustack.text import storable
from gpustack.worker.membership import Membership

log = logging.getLogger(__name__)

_ROOM = 10_000
_TRIES = 30
"""How often a server that answers, but with a fault of its own, is told the same before it is told the next."""
_LAST_WORDS_WITHIN = 2.0
_FAULTS = 5
"""How often a report that cannot even be sent is tried before it is dropped."""


@attrs.frozen
class _QueuedInstanceReport:
    instance_id: int
    said: InstanceReport

    @property
    def row(self) -> object:
        return "instance", self.instance_id

    def __str__(self) -> str:
        return (
            f"instance {self.instance_id}, {'gone' if self.said.gone else self.said.state or 'numbers only'}"
        )


@attrs.frozen
class _QueuedFileReport:
    source: ModelSource
    local_dir: str
    said: FileReport

    @property
    def row(self) -> object:
        return "files", self.source.index, self.local_dir

    def __str__(self) -> str:
        return f"files of {self.source.readable}, {self.said.state or 'progress only'}"


@attrs.frozen
class _QueuedFileRemoval:
    file_id: int

    @property
    def row(self) -> object:
        return "file", self.file_id

    def __str__(self) -> str:
        return f"file {self.file_id}, gone"


_QueuedReport = _QueuedInstanceReport | _QueuedFileReport | _QueuedFileRemoval


@attrs.define(eq=False, repr=False)
class ReportQueue:
    """A queue with one sender. Saying never waits; while the server is away the newest progress replaces older.

    What is said of one instance or file goes out in order. A fault in sending it that nobody foresaw holds up its own
    reports alone: it is tried again some times, later and later, then dropped.

    A report the server refuses (the instance is gone or moved, its life does not allow it) is dropped: the watch
    will show what is wanted now. When it is cancelled it tries once to deliver what is left.
    """

    _membership: Membership
    _rng: random.Random
    try_again: float = 1.0
    """Seconds, give or take half."""
    _queue: deque[_QueuedReport] = attrs.field(factory=deque)
    _sending: _QueuedReport | None = None
    _wake: Wake = attrs.field(factory=Wake)
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("reports"))
    name: str = "reports"

    def instance(self, instance_id: int, said: InstanceReport) -> None:
        """Queue a report of an instance; one of the same state takes the place of the one before it."""
        if said.state_message is not None:  # it may name files and tell what programs say
            said = attrs.evolve(said, state_message=storable(said.state_message))

        def is_its_own(one: _QueuedReport) -> bool:
            return isinstance(one, _QueuedInstanceReport) and one.instance_id == instance_id

        at = self._last(is_its_own)
        last = None if at is None else self._queue[at]
        if at is not None and isinstance(last, _QueuedInstanceReport) and _continues(last.said, said):
            self._queue[at] = _QueuedInstanceReport(instance_id, said.over(last.said))
        else:
            self._add(_QueuedInstanceReport(instance_id, said))
        self._wake.wake()

    def file(self, source: ModelSource, local_dir: str, said: FileReport) -> None:
        """Queue a report of a source's files; the server's record of them is made if there is none."""
        if said.state_message is not None:
            said = attrs.evolve(said, state_message=storable(said.state_message))

        def is_its_own(one: _QueuedReport) -> bool:
            return isinstance(one, _QueuedFileReport) and (one.source, one.local_dir) == (source, local_dir)

        at = self._last(is_its_own)
        last = None if at is None else self._queue[at]
        if at is not None and isinstance(last, _QueuedFileReport) and last.said.state is said.state:
            self._queue[at] = _QueuedFileReport(source, local_dir, said)
        else:
            self._add(_QueuedFileReport(source, local_dir, said))
        self._wake.wake()

    def file_gone(self, file_id: int) -> None:
        """Queue the word that a file has been removed."""
        self._add(_QueuedFileRemoval(file_id))
        self._wake.wake()

    def pending_for(self, instance_id: int) -> bool:
        """Whether something about the instance has not arrived yet."""
        return any(
            isinstance(one, _QueuedInstanceReport) and one.instance_id == instance_id for one in self._queue
        )

    def is_leaving(self, instance_id: int) -> bool:
        """Whether the word that an instance is gone is on its way."""
        return any(
            isinstance(one, _QueuedInstanceReport) and one.instance_id == instance_id and one.said.gone
            for one in self._queue
        )

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            while True:
                await self._deliver_all()
                await self._wake.wait(self._faults.due_in())
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_WORDS_WITHIN):
                await self._deliver_once()

    async def _deliver_all(self) -> None:
        """Deliver until nothing is left but of rows that are set aside."""
        tries = 0
        while (one := self._next()) is not None:
            tries += 1
            if await self._attempt(one, tries):
                tries = 0
            elif not self._faults.holds(one.row):
                await trio.sleep(self.try_again * (0.5 + self._rng.random()))

    async def _deliver_once(self) -> None:
        while (one := self._next()) is not None:
            if not await self._attempt(one, 1) and not self._faults.holds(one.row):
                return

    def _next(self) -> _QueuedReport | None:
        """The oldest report that may go now."""
        if self._faults.due_in() < math.inf:
            self._faults.keep_only({one.row for one in self._queue})
        return next((one for one in self._queue if not self._faults.holds(one.row)), None)

    async def _attempt(self, one: _QueuedReport, tries: int) -> bool:
        """Send one and take it from the queue; false when it stays there for another try."""
        done, self._sending = False, one
        try:
            with self._faults.row(one.row) as trial:
                done = await self._deliver(one, tries)
        finally:
            self._sending = None
        if trial.fault is not None and trial.fault.streak >= _FAULTS:
            log.error("A report cannot be sent and is dropped: report=%s", one)
            self._faults.forget(one.row)
            done = True
        if done:
            self._queue.remove(one)
        return done

    def _last(self, is_its_own: Callable[[_QueuedReport], bool]) -> int | None:
        """The place of the last such report in the queue; the first of all may be on its way already."""
        for at in range(len(self._queue) - 1, 0, -1):
            if self._queue[at] is not self._sending and is_its_own(self._queue[at]):
                return at
        return None

    def _add(self, one: _QueuedReport) -> None:
        if len(self._queue) >= _ROOM:
            log.error("The server has been away too long, the oldest report is dropped: waiting=%d", _ROOM)
            del self._queue[1 if self._queue[0] is self._sending else 0]
        self._queue.append(one)

    async def _deliver(self, one: _QueuedReport, tries: int) -> bool:
        """Send one; false when it is worth another try."""
        member = await self._membership.joined()
        client = self._membership.client
        try:
            if isinstance(one, _QueuedInstanceReport):
                await client.report_instance(one.instance_id, one.said)
            elif isinstance(one, _QueuedFileRemoval):
                await client.report_file(one.file_id, FileReport(gone=True))
            else:
                file_id = await client.ensure_file(member.worker_id, one.source, one.local_dir)
                await client.report_file(file_id, one.said)
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

    def __repr__(self) -> str:
        return f"<Reports: {len(self._queue)} waiting>"


def _continues(last: InstanceReport, said: InstanceReport) -> bool:
    """Whether ``said`` only adds to ``last``. A word without a state of its own speaks of the state it finds."""
    return not last.gone and not said.gone and said.state in (None, last.state)

"""Commits works, many in one transaction, and returns the result of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import attrs
import outcome
import sqlalchemy as sa
import trio

from gpustack.domain.event import ClusterEvent
from gpustack.domain.record import Change, ChangeKind, Record
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import AlreadyExists, Unavailable

from . import journal, lease
from .database import Database
from .dialect import RETRY_AFTER
from .event_history import EventLog
from .journal import PendingChange
from .lease import LeaseLost, LeaseTerm
from .load import UnreadableRow, rows
from .table import specs
from .transaction import Tx
from .working_copy import WorkingCopy

TRIM_EVERY = 1000
"""Changes appended between two trims of the table of changes."""
TRIM_EVERY_BYTES = 16 << 20
"""Or bytes of them, if that is reached earlier."""

Result = outcome.Outcome[Any]


@attrs.define(eq=False)
class WriteJob:
    """A submitted work."""

    work: Callable[[Tx], Any]
    term: LeaseTerm | None = None
    done: trio.Event = attrs.field(factory=trio.Event)
    result: Result | None = None
    withdrawn: bool = False
    """The caller was cancelled: if the work has not begun, it is skipped."""

    def finish(self, result: Result) -> None:
        """Set the result and wake the caller. Only from the Trio thread."""
        self.result = result
        self.done.set()


@attrs.frozen
class CommitResult:
    """The result of one commit, with the changes that other servers had committed before it."""

    results: Sequence[tuple[WriteJob, Result]]
    changes: Sequence[Change] = ()
    snapshot: Snapshot | None = None
    """``None`` when nothing changed."""
    resynced: bool = False
    """Some changes were missed: ``changes`` are the differences found by a comparison of all tables."""
    failure: Unavailable | None = None
    """Why the database could not be written or read."""


@attrs.frozen
class _ForeignChanges:
    """What other servers committed since the last look."""

    changes: Sequence[Change] = ()
    resynced: bool = False


@attrs.define(eq=False, repr=False)
class Writer:
    """Owns the writing connection and the working copy. For one thread at a time.

    Before it runs works, it locks the head of the changes and applies the commits of other servers to the working copy.
    So a work may read and then write without a race, however many servers share the database.
    """

    _database: Database
    _copy: WorkingCopy
    _clock: Callable[[], datetime]
    revision: int
    _events: EventLog = attrs.field(factory=EventLog)
    _appended: int = 0
    _appended_bytes: int = 0

    def commit(self, jobs: Sequence[WriteJob]) -> CommitResult:
        """Run all works in one transaction; one that raises is undone alone. Blocks until the commit is on disk.

        What a work raises is its result. When the database fails, all is undone, and every work that had succeeded
        gets ``Unavailable``. If the connection broke during the commit, it may have been done; then the next commit
        or poll applies it like one of another server.
        """
        results: list[tuple[WriteJob, Result]] = []
        try:
            with self._database.write.begin() as conn:
                head = journal.lock_head(conn)
                foreign = self._catch_up(conn, head)
                pending: list[PendingChange] = []
                events: list[ClusterEvent] = []
                terms: dict[LeaseTerm, bool] = {}
                for job in jobs:
                    if not job.withdrawn:
                        result, made, told = self._attempt(conn, job, head, terms)
                        results.append((job, result))
                        pending += made
                        events += told
                now = self._clock()
                changes = journal.append(conn, pending, head, now)
                self._events.append(conn, events)
                self._trim(conn, changes, now)
        except (sa.exc.SQLAlchemyError, Unavailable) as error:
            self._copy.undo()
            self._events.undone()
            return CommitResult(self._failed(jobs, results, error), failure=self._unavailable(error))
        self._copy.keep()
        before, self.revision = self.revision, head + len(changes)
        if before == self.revision:
            return CommitResult(results)
        snapshot = self._copy.snapshot(self.revision)
        return CommitResult(results, [*foreign.changes, *changes], snapshot, foreign.resynced)

    def poll(self) -> CommitResult:
        """Apply what other servers committed. Blocks until the database answers."""
        try:
            with self._database.write.begin() as conn:
                if journal.revision(conn) == self.revision:
                    return CommitResult(())
        except sa.exc.SQLAlchemyError as error:
            return CommitResult((), failure=self._unavailable(error))
        return self.commit(())

    def _catch_up(self, conn: sa.Connection, head: int) -> _ForeignChanges:
        if head == self.revision:
            return _ForeignChanges()
        missed = journal.between(conn, self.revision, head)
        if missed is None:
            return _ForeignChanges(self._compare_all(conn, head), True)
        foreign = []
        for change in missed:
            if change is not None:
                before = self._copy.get(type(change.record), change.record.id)
                self._apply(change.kind, change.record)
                foreign.append(attrs.evolve(change, before=before))
        return _ForeignChanges(foreign)

    def _compare_all(self, conn: sa.Connection, head: int) -> list[Change]:
        """Compare the working copy with all tables and apply the differences; returns them, all at revision
        ``head``."""
        found = []
        there: set[tuple[type[Record], int]] = set()
        unread: list[UnreadableRow] = []
        for record in rows(conn):
            if isinstance(record, UnreadableRow):
                unread.append(record)
                continue
            cls = type(record)
            there.add((cls, record.id))
            before = self._copy.get(cls, record.id)
            if before != record:
                kind = ChangeKind.CREATED if before is None else ChangeKind.UPDATED
                found.append(Change(head, kind, specs[cls].name, record, before))
        for cls, spec in specs.items():
            if spec.in_memory:
                for record in self._copy.all(cls).values():
                    if (cls, record.id) not in there:
                        found.append(Change(head, ChangeKind.DELETED, spec.name, record, record))
        self._copy.leave_out(unread)
        # A unique value may have moved to another record: deletions come first.
        found.sort(key=lambda change: change.kind is not ChangeKind.DELETED)
        for change in found:
            self._apply(change.kind, change.record)
        return found

    def _apply(self, kind: ChangeKind, record: Record) -> None:
        if kind is ChangeKind.DELETED:
            self._copy.remove(record)
        else:
            self._copy.put(record)

    def _attempt(
        self, conn: sa.Connection, job: WriteJob, head: int, terms: dict[LeaseTerm, bool]
    ) -> tuple[Result, list[PendingChange], list[ClusterEvent]]:
        if job.term is not None:
            if job.term not in terms:
                terms[job.term] = lease.stands(conn, job.term)
            if not terms[job.term]:
                name, number = job.term.name, job.term.number
                return (
                    outcome.Error(LeaseLost(f"Another server leads {name} now: term {number} is over")),
                    [],
                    [],
                )
        tx = Tx(conn, self._database.dialect, self._copy, head, self._clock())
        result = outcome.capture(job.work, tx)
        if conn.invalidated:  # the connection broke, so all works of this transaction are undone
            error = result.error if isinstance(result, outcome.Error) else None
            if isinstance(error, sa.exc.DBAPIError):
                raise error
            raise Unavailable(
                f"The connection to the database {self._database.place} was lost: try again", RETRY_AFTER
            )
        made = tx.end(keep=isinstance(result, outcome.Value))
        if isinstance(result, outcome.Error):
            result = self._named(result)
        worker = partial(self._copy.get, Worker)
        events = self._events.of(made, tx.histories, tx.now, worker) if made else []
        return result, made, events

    def _named(self, result: outcome.Error) -> Result:
        """Errors of the database as errors of GPUStack; everything else unchanged."""
        error = result.error
        if isinstance(error, sa.exc.IntegrityError):
            # The working copy checks unique values; the database may compare names in another way.
            return _raising(AlreadyExists("Such a record exists already: read again"), error)
        if isinstance(error, sa.exc.DBAPIError):
            return _raising(self._database.fault(error), error)
        return result

    def _failed(
        self, jobs: Sequence[WriteJob], results: Sequence[tuple[WriteJob, Result]], error: Exception
    ) -> list[tuple[WriteJob, Result]]:
        raised = {job: result for job, result in results if isinstance(result, outcome.Error)}
        return [
            (job, raised.get(job) or _raising(self._unavailable(error), error))
            for job in jobs
            if not job.withdrawn or job in raised
        ]

    def _unavailable(self, error: Exception) -> Unavailable:
        if isinstance(error, Unavailable):
            # One for each caller, because each gets a traceback.
            return Unavailable(str(error), error.retry_after)
        return self._database.unavailable(error)

    def _trim(self, conn: sa.Connection, appended: Sequence[Change], now: datetime) -> None:
        self._appended += len(appended)
        self._appended_bytes += sum(change.size for change in appended)
        if self._appended >= TRIM_EVERY or self._appended_bytes >= TRIM_EVERY_BYTES:
            self._appended = self._appended_bytes = 0
            journal.trim(conn, now)


def _raising(error: Exception, cause: BaseException) -> outcome.Error:
    error.__cause__ = cause
    return outcome.Error(error)

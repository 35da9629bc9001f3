"""Commits what callers ask for, many works in one transaction, and says what came of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import attrs
import outcome
import sqlalchemy as sa
import trio

from gpustack.domain.record import Change, ChangeKind, Record
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import AlreadyExists, Unavailable

from . import journal, lease
from .database import Database
from .dialect import RETRY_AFTER
from .journal import PendingChange
from .lease import LeaseLost, LeaseTerm
from .load import UnreadableRow, rows
from .table import specs
from .transaction import Tx
from .working_copy import WorkingCopy

TRIM_EVERY = 1000
"""Changes appended between two looks at what may go."""
TRIM_EVERY_BYTES = 16 << 20
"""Or as much of them, where they are large."""

Result = outcome.Outcome[Any]


@attrs.define(eq=False)
class WriteJob:
    """One work that somebody waits for."""

    work: Callable[[Tx], Any]
    term: LeaseTerm | None = None
    done: trio.Event = attrs.field(factory=trio.Event)
    result: Result | None = None
    withdrawn: bool = False
    """Its caller is gone: not begun, it is not begun any more."""

    def finish(self, result: Result) -> None:
        """Tell the caller. Only from the Trio thread."""
        self.result = result
        self.done.set()


@attrs.frozen
class CommitResult:
    """What one commit brought, with what others had committed before it."""

    results: Sequence[tuple[WriteJob, Result]]
    changes: Sequence[Change] = ()
    snapshot: Snapshot | None = None
    """``None`` when nothing changed."""
    afresh: bool = False
    """The changes are a comparison of then and now: in between some were missed."""
    failure: Unavailable | None = None
    """Why the database could not be written or asked."""


@attrs.frozen
class _ForeignChanges:
    """What others committed since we looked last."""

    changes: Sequence[Change] = ()
    afresh: bool = False


@attrs.define(eq=False, repr=False)
class Writer:
    """Owns the writing connection and the memory that goes with it. For one thread at a time.

    Before any work of ours is done, memory is brought to what the database holds, with the head of the changes
    locked: so that looking and then changing is safe however many servers do it.
    """

    _database: Database
    _memory: WorkingCopy
    _clock: Callable[[], datetime]
    revision: int
    _appended: int = 0
    _appended_bytes: int = 0

    def commit(self, jobs: Sequence[WriteJob]) -> CommitResult:
        """Do all works in one transaction, each undone alone if it raises. Blocks until it is on disk.

        What a work raises is its result. When the database fails, nothing of the batch is kept, and every
        work that had succeeded gets ``Unavailable``; only where the connection broke in the very moment of the
        commit may it have been done all the same, and is then heard as if another server had done it.
        """
        results: list[tuple[WriteJob, Result]] = []
        try:
            with self._database.write.begin() as conn:
                head = journal.hold(conn)
                heard = self._catch_up(conn, head)
                alterations: list[PendingChange] = []
                terms: dict[LeaseTerm, bool] = {}
                for job in jobs:
                    if not job.withdrawn:
                        result, altered = self._attempt(conn, job, head, terms)
                        results.append((job, result))
                        alterations += altered
                now = self._clock()
                changes = journal.append(conn, alterations, head, now)
                self._trim(conn, changes, now)
        except (sa.exc.SQLAlchemyError, Unavailable) as error:
            self._memory.take_back()
            return CommitResult(self._failed(jobs, results, error), failure=self._unavailable(error))
        self._memory.keep()
        before, self.revision = self.revision, head + len(changes)
        if before == self.revision:
            return CommitResult(results)
        snapshot = self._memory.snapshot(self.revision)
        return CommitResult(results, [*heard.changes, *changes], snapshot, heard.afresh)

    def poll(self) -> CommitResult:
        """Hear what other servers committed. Blocks for as long as the database takes to answer."""
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
            return _ForeignChanges(self._afresh(conn, head), True)
        heard = []
        for change in missed:
            if change is not None:
                before = self._memory.get(type(change.record), change.record.id)
                self._apply(change.kind, change.record)
                heard.append(attrs.evolve(change, before=before))
        return _ForeignChanges(heard)

    def _afresh(self, conn: sa.Connection, head: int) -> list[Change]:
        """Bring memory to what the tables hold; returns the differences, all at revision ``head``."""
        found = []
        there: set[tuple[type[Record], int]] = set()
        unread: list[UnreadableRow] = []
        for record in rows(conn):
            if isinstance(record, UnreadableRow):
                unread.append(record)
                continue
            cls = type(record)
            there.add((cls, record.id))
            before = self._memory.get(cls, record.id)
            if before != record:
                kind = ChangeKind.CREATED if before is None else ChangeKind.UPDATED
                found.append(Change(head, kind, specs[cls].name, record, before))
        for cls, spec in specs.items():
            if spec.in_memory:
                for record in self._memory.all(cls).values():
                    if (cls, record.id) not in there:
                        found.append(Change(head, ChangeKind.DELETED, spec.name, record, record))
        self._memory.leave_out(unread)
        # What is unique may have changed hands: what goes makes room first.
        found.sort(key=lambda change: change.kind is not ChangeKind.DELETED)
        for change in found:
            self._apply(change.kind, change.record)
        return found

    def _apply(self, kind: ChangeKind, record: Record) -> None:
        if kind is ChangeKind.DELETED:
            self._memory.remove(record)
        else:
            self._memory.put(record)

    def _attempt(
        self, conn: sa.Connection, job: WriteJob, head: int, terms: dict[LeaseTerm, bool]
    ) -> tuple[Result, list[PendingChange]]:
        if job.term is not None:
            if job.term not in terms:
                terms[job.term] = lease.stands(conn, job.term)
            if not terms[job.term]:
                return outcome.Error(_deposed(job.term)), []
        tx = Tx(conn, self._database.dialect, self._memory, head, self._clock())
        result = outcome.capture(job.work, tx)
        if conn.invalidated:  # the connection is gone, and with it what was done before
            error = result.error if isinstance(result, outcome.Error) else None
            raise error if isinstance(error, sa.exc.DBAPIError) else _lost(self._database.place)
        altered = tx.end(keep=isinstance(result, outcome.Value))
        if isinstance(result, outcome.Error):
            result = self._named(result)
        return result, altered

    def _named(self, result: outcome.Error) -> Result:
        """Errors of the database under the names of ours; everything else as it was raised."""
        error = result.error
        if isinstance(error, sa.exc.IntegrityError):
            # Memory knows what is taken; the database may compare names in another way.
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
            return Unavailable(
                str(error), error.retry_after
            )  # one for each caller: it will carry a traceback
        return self._database.unavailable(error)

    def _trim(self, conn: sa.Connection, appended: Sequence[Change], now: datetime) -> None:
        self._appended += len(appended)
        self._appended_bytes += sum(change.size for change in appended)
        if self._appended >= TRIM_EVERY or self._appended_bytes >= TRIM_EVERY_BYTES:
            self._appended = self._appended_bytes = 0
            journal.trim(conn, now)


def _lost(place: str) -> Unavailable:
    return Unavailable(f"The connection to the database {place} was lost: try again", RETRY_AFTER)


def _deposed(term: LeaseTerm) -> LeaseLost:
    return LeaseLost(f"Another server leads {term.name} now: term {term.number} is over")


def _raising(error: Exception, cause: BaseException) -> outcome.Error:
    error.__cause__ = cause
    return outcome.Error(error)

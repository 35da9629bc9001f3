"""Commits what callers ask for, many works in one transaction, and says what came of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import attrs
import outcome
import sqlalchemy as sa
import trio

from gpustack.domain.change import Change
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import AlreadyExists, Unavailable

from . import journal
from .engine import Database
from .journal import Alteration
from .memory import Memory
from .transaction import Tx

TRIM_EVERY = 1000
"""Changes appended between two looks at what may go."""

Result = outcome.Outcome[Any]


@attrs.define(eq=False)
class Job:
    """One work that somebody waits for."""

    work: Callable[[Tx], Any]
    done: trio.Event = attrs.field(factory=trio.Event)
    result: Result | None = None
    withdrawn: bool = False
    """Its caller is gone: not begun, it is not begun any more."""

    def finish(self, result: Result) -> None:
        """Tell the caller. Only from the Trio thread."""
        self.result = result
        self.done.set()


@attrs.frozen
class Batch:
    """What one commit brought. ``snapshot`` is ``None`` when it changed nothing."""

    results: Sequence[tuple[Job, Result]]
    changes: Sequence[Change] = ()
    snapshot: Snapshot | None = None


@attrs.define(eq=False, repr=False)
class Writer:
    """Owns the writing connection and the memory that goes with it. For one thread at a time."""

    _database: Database
    _memory: Memory
    _clock: Callable[[], datetime]
    revision: int
    _appended: int = 0

    def commit(self, jobs: Sequence[Job]) -> Batch:
        """Do all works in one transaction, each undone alone if it raises. Blocks until it is on disk.

        What a work raises is its result. When the database fails, nothing of the batch is kept, and every
        work that had succeeded gets ``Unavailable``.
        """
        results: list[tuple[Job, Result]] = []
        try:
            with self._database.write.begin() as conn:
                alterations: list[Alteration] = []
                for job in jobs:
                    if not job.withdrawn:
                        result, altered = self._attempt(conn, job)
                        results.append((job, result))
                        alterations += altered
                now = self._clock()
                changes = journal.append(conn, alterations, now)
                self._trim(conn, len(changes), now)
        except (sa.exc.SQLAlchemyError, Unavailable) as error:
            self._memory.take_back()
            return Batch(self._failed(jobs, results, error))
        self._memory.keep()
        if not changes:
            return Batch(results)
        self.revision = changes[-1].revision
        return Batch(results, changes, self._memory.snapshot(self.revision))

    def _attempt(self, conn: sa.Connection, job: Job) -> tuple[Result, list[Alteration]]:
        tx = Tx(conn, self._memory, self.revision, self._clock())
        result = outcome.capture(job.work, tx)
        altered = tx.end(keep=isinstance(result, outcome.Value))
        if isinstance(result, outcome.Error):
            result = self._named(result)
        return result, altered

    def _named(self, result: outcome.Error) -> Result:
        """Errors of the database under the names of ours; everything else as it was raised."""
        error = result.error
        if isinstance(error, sa.exc.IntegrityError):
            # Memory knows what is taken here; the database may know better where several servers share it.
            return _raising(AlreadyExists("Such a record exists already: read again"), error)
        if isinstance(error, sa.exc.DBAPIError):
            return _raising(self._database.unavailable(error), error)
        return result

    def _failed(
        self, jobs: Sequence[Job], results: Sequence[tuple[Job, Result]], error: Exception
    ) -> list[tuple[Job, Result]]:
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

    def _trim(self, conn: sa.Connection, appended: int, now: datetime) -> None:
        self._appended += appended
        if self._appended >= TRIM_EVERY:
            self._appended = 0
            journal.trim(conn, now)


def _raising(error: Exception, cause: BaseException) -> outcome.Error:
    error.__cause__ = cause
    return outcome.Error(error)

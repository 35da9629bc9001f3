"""The store of all records: a snapshot to read, works that write, and notice of every change."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar, cast

import attrs
import outcome
import sqlalchemy as sa
import trio

from gpustack.domain.record import Change
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import Unavailable
from gpustack.nursery.limiter import ThreadLimiter, threads
from gpustack.nursery.wake import Wake

from . import journal, lease
from .attached_write import pending_write
from .change_buffer import ChangeBuffer
from .database import Database, open_database
from .dialect import RETRY_AFTER, Dialect, PoolSettings
from .lease import LeaseTerm
from .load import rows
from .migration import migrate
from .transaction import Tx
from .working_copy import WorkingCopy
from .writer import CommitResult, WriteJob, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH = 256
"""Works in one commit: enough to share the sync, few enough that the first one does not wait long."""
WAITING = 10_000
FLUSH_SECONDS = 10.0
"""Seconds that a store which stops may take to commit the works it has accepted."""
POLL_SECONDS = 0.5
"""Seconds between two polls for commits of other servers."""
_FLUSHES_AT_LEAST = 1.0
_ENDS_WITHIN = 0.5
"""Seconds that a cancelled transaction beside the writer may still take."""
_REFRESH_EVERY = 0.05
_REFRESH_WITHIN = 2.0
"""Seconds between two polls that ``refresh`` asks for, and the most that a ``refresh`` takes."""
REPLAYED = 1000
"""Changes loaded at start, so that watchers can resume after a restart."""


@attrs.frozen(kw_only=True)
class StoreSettings:
    """Where the records are stored: at ``url``, or in a file in ``data_dir``."""

    data_dir: str
    url: str | None = None
    pool: PoolSettings = PoolSettings()

    @property
    def database_url(self) -> str | sa.URL:
        path = Path(self.data_dir) / "database.db"
        return self.url or sa.URL.create("sqlite", database=str(path))


@attrs.frozen(eq=False)
class _TableWatch:
    tables: frozenset[str] | None
    wake: Wake


@attrs.define(eq=False, repr=False)
class Store:
    """All records, in memory and in the database. Everything but works and queries runs in the Trio thread."""

    _database: Database
    _writer: Writer
    _buffer: ChangeBuffer
    _snapshot: Snapshot
    name: str = "store"
    _queue: deque[WriteJob] = attrs.field(factory=deque)
    _waiting: set[WriteJob] = attrs.field(factory=set)
    _wake: Wake = attrs.field(factory=Wake)
    _watches: list[_TableWatch] = attrs.field(factory=list)
    _closed: bool = False
    _refreshing: list[trio.Event] = attrs.field(factory=list)
    """Callers of ``refresh``."""
    _refreshed_at: float = -math.inf
    commits: int = 0
    """Commits since the start that changed a record."""
    _write_threads: ThreadLimiter = attrs.field(factory=lambda: threads("store-write", 1))
    _lease_threads: ThreadLimiter = attrs.field(factory=lambda: threads("store-lease", 1))
    _beside_threads: ThreadLimiter = attrs.field(factory=lambda: threads("store-beside", 1))
    _read_threads: ThreadLimiter = attrs.field(factory=lambda: threads("store-read", PoolSettings().most))
    _read_patience: float = PoolSettings().timeout
    """Seconds a query waits for a thread, of which there are as many as reading connections."""
    _failure: Unavailable | None = None
    flush_by: float = math.inf
    """By Trio's clock, when a stop under way has to be over; the last commits get at least one second."""

    @property
    def snapshot(self) -> Snapshot:
        """All records as of the last commit."""
        return self._snapshot

    @property
    def shared(self) -> bool:
        """Other servers may have the same database."""
        return self._database.shared

    @property
    def failure(self) -> Unavailable | None:
        """Why the last access to the database failed; ``None`` when it succeeded."""
        return self._failure

    @property
    def writes_waiting(self) -> int:
        """Works that were submitted and are not committed."""
        return len(self._waiting)

    async def write(self, work: Callable[[Tx], T], *, term: LeaseTerm | None = None) -> T:
        """Run ``work`` in a transaction of the writer and return its result, once it is on disk.

        By then ``snapshot`` shows it and the watches have been woken. What ``work`` raises is raised here and undoes
        its writes; ``Unavailable`` when the database fails or the store has stopped. Works run in a thread: they use
        only their ``Tx`` and immutable values, and must be quick. Waits until the store runs. Cancelled, the work may
        or may not be done, but never in part.

        Within ``attach`` the attached write is done in the same transaction.
        With a ``term`` the work is done only if that still is the latest of its lease; ``LeaseLost`` otherwise.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise _stopped()
        if len(self._waiting) >= WAITING:
            raise Unavailable(f"{WAITING} writes wait for the database: try again", 1.0)
        attached = pending_write()
        job = WriteJob(work if attached is None else attached.beside(work), term)
        self._waiting.add(job)
        self._queue.append(job)
        self._wake.wake()
        try:
            await job.done.wait()
        finally:
            job.withdrawn = True
            self._waiting.discard(job)
        assert job.result is not None
        result = cast(T, job.result.unwrap())
        if attached is not None:
            attached.written = True
        return result

    async def try_lease(self, name: str, holder: str, ttl: float) -> LeaseTerm | None:
        """Take the lease ``name`` for ``ttl`` seconds or renew it; ``None`` while another holder has it.

        The term grows with every new holder and after every gap, by the clock of the database. Raises ``Unavailable``.
        Cancelled, it may have been taken.
        """

        def take(conn: sa.Connection, dialect: Dialect) -> LeaseTerm | None:
            return lease.take(conn, dialect, name, holder, ttl)

        return await self._beside(self._lease_threads, take)

    async def end_lease(self, term: LeaseTerm, holder: str) -> None:
        """End the lease if ``holder`` has it in ``term``, so that the next holder need not wait; as ``try_lease``."""
        await self._beside(self._lease_threads, lambda conn, _: lease.give_up(conn, term, holder))

    async def beside(self, fn: Callable[[sa.Connection, Dialect], T]) -> T:
        """Run ``fn`` in a transaction of its own beside the writer, for tables that are not records.

        Raises ``Unavailable``, and what ``fn`` raises. Cancelled, it may have been done.
        """
        return await self._beside(self._beside_threads, fn)

    async def _beside(self, threads: ThreadLimiter, fn: Callable[[sa.Connection, Dialect], T]) -> T:
        """Cancelled, it waits half a second for a transaction that has begun, and leaves it running then."""

        def work() -> T:
            try:
                with self._database.write.begin() as conn:
                    return fn(conn, self._database.dialect)
            except sa.exc.SQLAlchemyError as error:
                raise self._database.unavailable(error) from error

        results: list[outcome.Outcome[T]] = []
        patience, over = trio.CancelScope(shield=True), trio.Event()

        async def hop() -> None:
            with patience:
                results.append(await outcome.acapture(threads.run, work, abandon=True))
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hop)
            try:
                await over.wait()
            finally:
                patience.deadline = trio.current_time() + _ENDS_WITHIN
        return results[0].unwrap()

    async def query(self, fn: Callable[[sa.Connection], T]) -> T:
        """Run a read-only ``fn`` in a thread, for tables that are not in memory (histories); raises ``Unavailable``.

        Not cancellable once ``fn`` has begun.
        """

        def read() -> T:
            try:
                with self._database.read.connect() as conn:
                    return fn(conn)
            except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
                raise self._database.unavailable(error) from error

        # Ends only the wait for a thread: a function that runs in one is not cancelled.
        with trio.move_on_after(self._read_patience):
            return await self._read_threads.run(read)
        raise Unavailable(
            f"All connections for reading the database were busy for {self._read_patience:g} s: try again, or allow "
            "more (GPUSTACK_DB_POOL_SIZE, GPUSTACK_DB_MAX_OVERFLOW)",
            RETRY_AFTER,
        )

    async def refresh(self) -> bool:
        """Apply what other servers have committed by now; returns whether there can be other servers.

        For requests that refer to something which the snapshot does not have yet. Takes two seconds at most, also when
        the database fails.
        """
        await trio.lowlevel.checkpoint()
        if not self.shared or self._closed:
            return False
        with trio.move_on_after(_REFRESH_WITHIN):
            await trio.sleep_until(self._refreshed_at + _REFRESH_EVERY)
            applied = trio.Event()
            self._refreshing.append(applied)
            self._wake.wake()
            await applied.wait()
        return True

    def changes_since(self, revision: int) -> list[Change]:
        """Every change after ``revision``, oldest first; raises ``RevisionExpired`` when that is too long ago.

        Called after each wake of a ``watch`` with the last revision seen, it returns every change once.
        ``before`` is ``None`` in changes from before this start.
        """
        return self._buffer.since(revision)

    @contextmanager
    def watch(self, tables: Iterable[str] | None = None) -> Iterator[Wake]:
        """A wake that is called after every commit that changed one of ``tables`` (by default any)."""
        watch = _TableWatch(None if tables is None else frozenset(tables), Wake())
        self._watches.append(watch)
        try:
            yield watch.wake
        finally:
            self._watches.remove(watch)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit works until cancelled; then commit those accepted before, for a bounded time, and close."""
        flush = trio.CancelScope(shield=True)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._commit_loop, flush)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._closed = True
                    self._wake.wake()
                    now = trio.current_time()
                    left = max(self.flush_by - now, _FLUSHES_AT_LEAST)
                    flush.deadline = now + min(left, FLUSH_SECONDS)
        finally:
            self.close()

    def close(self) -> None:
        """Close the database and refuse further writes, for a store that is not running. May be called again."""
        self._closed = True
        self._queue.clear()
        for job in self._waiting:
            if job.result is None:
                job.finish(outcome.Error(_stopped()))
        self._waiting.clear()
        self._database.close()

    async def _commit_loop(self, flush: trio.CancelScope) -> None:
        with flush:
            while self._queue or not self._closed:
                idle = not self._queue and not self._refreshing
                if idle and await self._wake.wait(POLL_SECONDS if self.shared else math.inf):
                    continue
                refreshing, self._refreshing = self._refreshing, []
                self._refreshed_at = trio.current_time()
                jobs = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                # The thread is abandoned only when the time to flush is over: then its callers get ``Unavailable``.
                if jobs:
                    self._publish(await self._write_threads.run(self._writer.commit, jobs, abandon=True))
                elif self.shared:
                    self._publish(await self._write_threads.run(self._writer.poll, abandon=True))
                for applied in refreshing:
                    applied.set()

    def _publish(self, commit: CommitResult) -> None:
        """Publish a commit in one step of the Trio thread: the snapshot, then the changes, then the results."""
        self._note_failure(commit.failure)
        if commit.snapshot is not None:
            self.commits += 1
            commit.snapshot.take_over(self._snapshot)
            self._snapshot = commit.snapshot
            if commit.resynced:
                self._buffer.restart(commit.snapshot.revision)
            else:
                self._buffer.extend(commit.changes, commit.snapshot.revision)
            touched = {change.table for change in commit.changes}
            for watch in self._watches:
                if watch.tables is None or watch.tables & touched:
                    watch.wake.wake()
        for job, result in commit.results:
            job.finish(result)

    def _note_failure(self, failure: Unavailable | None) -> None:
        if failure is not None and self._failure is None:
            log.error("The database fails; reads and inference go on: reason=%s", failure)
        if failure is None and self._failure is not None:
            log.info("The database is back: place=%s", self._database.place)
        self._failure = failure

    def __repr__(self) -> str:
        state = "stopped" if self._closed else f"{len(self._waiting)} writes waiting"
        return f"<Store at {self._database.place}: revision {self._snapshot.revision}, {state}>"


@attrs.frozen
class FlushDeadline:
    """A service of the store's tier that is started last, so it is stopped first: from then on the store, and all that
    write to it at their end, have ``FLUSH_SECONDS`` together."""

    _store: Store
    name: str = "stop clock"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._store.flush_by = trio.current_time() + FLUSH_SECONDS


async def open_store(settings: StoreSettings, clock: Callable[[], datetime]) -> Store:
    """Open the database, bring its schema up to date and load the records. The caller must ``run`` or ``close`` the
    store.

    Raises ``Invalid`` or ``Unavailable`` with a sentence for the operator. Not cancellable.
    """
    return await threads("store-open", 1).run(_open, settings, clock)


def _open(settings: StoreSettings, clock: Callable[[], datetime]) -> Store:
    database = open_database(settings.database_url, settings.pool)
    try:
        return _load(database, settings.pool, clock)
    except sa.exc.DBAPIError as error:
        database.close()
        raise database.fault(error) from error
    except BaseException:
        database.close()
        raise


def _load(database: Database, pool: PoolSettings, clock: Callable[[], datetime]) -> Store:
    migrate(database)
    working_copy = WorkingCopy()
    with database.write.begin() as conn:
        journal.trim(conn, clock())
    with database.write.begin() as conn:
        revision = journal.lock_head(conn)
        working_copy.load(rows(conn))
        floor, changes = journal.newest(conn, REPLAYED)
    buffer = ChangeBuffer(floor, revision)
    buffer.extend(changes)
    return Store(
        database,
        Writer(database, working_copy, clock, revision),
        buffer,
        working_copy.snapshot(revision),
        read_threads=threads("store-read", pool.most),
        read_patience=pool.timeout,
    )


def _stopped() -> Unavailable:
    return Unavailable("The store has stopped: try again once the server is back", 1.0)

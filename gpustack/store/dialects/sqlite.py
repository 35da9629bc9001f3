"""SQLite: a file of one server, written through exactly one connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from gpustack.errors import GpustackError, Unavailable
from gpustack.store.dialect import RETRY_AFTER, Connections, PoolSettings, merged
from gpustack.store.lock import FileLock

BUSY_SECONDS = 5.0

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",  # an acknowledged write survives a power cut; group commit makes up for the cost
    "wal_autocheckpoint=1000",
    "journal_size_limit=67108864",
    "temp_store=MEMORY",
)
_SEQUENCES = sa.table("sqlite_sequence", sa.column("name"), sa.column("seq"))


class Sqlite:
    """Exactly one connection may write: SQLite up to 3.51.2 can damage its file when two connections write
    or checkpoint at once, so that the writing connection holds a lock file against other processes too.
    """

    shared = False
    clock = "cast((julianday('now') - 2440587.5) * 86400000 as integer)"

    def open(self, url: sa.URL, pool: PoolSettings) -> Connections:
        """The file and its folder are created when missing, for their owner only."""
        if url.database in (None, "", ":memory:"):
            engine = _engine(
                lambda: _connect(":memory:", uri=False), "BEGIN IMMEDIATE", PoolSettings(size=1, overflow=0)
            )
            return Connections(place="in memory", write=engine, read=engine, slow=engine)
        return _open_file(Path(str(url.database)).absolute(), pool)

    def check(self, conn: sa.Connection, place: str) -> None:
        """Every SQLite of a supported Python is new enough."""

    @contextmanager
    def migrating(self, connections: Connections) -> Iterator[sa.Connection]:
        with connections.write.begin() as conn:
            yield conn

    @contextmanager
    def snapshot(self, connections: Connections) -> Iterator[sa.Connection]:
        with connections.slow.begin() as conn:
            yield conn

    def upsert(
        self, table: sa.Table, *, key: Sequence[str], adding: Sequence[str], replacing: Sequence[str]
    ) -> sa.Insert:
        statement = sqlite.insert(table)
        return statement.on_conflict_do_update(
            index_elements=list(key),
            set_=merged(table, statement.excluded, adding, replacing),
        )

    def next_id(self, conn: sa.Connection, table: sa.Table) -> int:
        query = sa.select(_SEQUENCES.c.seq).where(_SEQUENCES.c.name == table.name)
        return int(conn.execute(query).scalar() or 0) + 1

    def set_next_id(self, conn: sa.Connection, table: sa.Table, number: int) -> None:
        last = number - 1
        known = conn.execute(
            sa.update(_SEQUENCES)
            .where(_SEQUENCES.c.name == table.name)
            .values(seq=sa.func.max(_SEQUENCES.c.seq, last))
        )
        if not known.rowcount:
            conn.execute(sa.insert(_SEQUENCES).values(name=table.name, seq=last))

    def fault(self, place: str, cause: Any) -> GpustackError | None:
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return Unavailable(
                f"The database {place} is damaged or is no database ({cause}): restore it from a backup, or move"
                " it away to start afresh"
            )
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return unwritable(place, str(cause))
        if code == sqlite3.SQLITE_FULL:
            return Unavailable(
                f"The disk that holds the database {place} is full: free some space, then try again",
                RETRY_AFTER,
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Unavailable(f"The database {place} is held by another program: try again", RETRY_AFTER)
        return None


def unwritable(place: str, why: str) -> Unavailable:
    """The error for a file that cannot be written, with what to change."""
    return Unavailable(
        f"The database {place} cannot be written ({why}): give the user that runs gpustack write access to the"
        " file and its folder, or choose another place with --data-dir or --database-url"
    )


def _open_file(path: Path, pool: PoolSettings) -> Connections:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)  # the side files take their mode from it
    except OSError as error:
        raise unwritable(str(path), error.strerror or str(error)) from error
    lock = FileLock(path.with_name(path.name + ".lock"))
    location = quote(str(path))

    def writing() -> sqlite3.Connection:
        lock.acquire()
        connection = _connect(f"file:{location}?mode=rw", uri=True)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def reading() -> sqlite3.Connection:
        return _connect(f"file:{location}?mode=ro", uri=True)

    read = _engine(reading, "BEGIN", pool)
    write = _engine(writing, "BEGIN IMMEDIATE", PoolSettings(size=1, overflow=0, echo=pool.echo))
    return Connections(place=str(path), write=write, read=read, slow=read, lock=lock)


def _connect(name: str, *, uri: bool) -> sqlite3.Connection:
    return sqlite3.connect(
        name,
        uri=uri,
        timeout=BUSY_SECONDS,
        isolation_level=None,  # the driver begins no transaction by itself
        check_same_thread=False,  # the pool lets one thread at a time use it
    )


def _engine(connect: Callable[[], sqlite3.Connection], begin: str, pool: PoolSettings) -> sa.Engine:
    engine = sa.create_engine(
        "sqlite://",
        poolclass=QueuePool,
        pool_size=pool.size,
        max_overflow=pool.overflow,
        pool_timeout=pool.timeout,
        echo=pool.echo,
        hide_parameters=True,
    )

    @sa.event.listens_for(engine, "do_connect")
    def _open(
        dialect: sa.Dialect, record: ConnectionPoolEntry, args: Any, parameters: Any
    ) -> DBAPIConnection:
        return connect()  # type: ignore[return-value]  # sqlite3 is not typed as DBAPI by SQLAlchemy

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine

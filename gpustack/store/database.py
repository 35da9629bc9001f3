"""Connections to the database, and all that differs from one dialect to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from gpustack.errors import Invalid, Unavailable

from .lock import FileLock

BUSY_SECONDS = 5.0
READERS = 2

_RETRY_AFTER = 1.0
_SQLITE_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",  # an acknowledged write outlives a power cut; group commit pays for the sync
    "wal_autocheckpoint=1000",
    "journal_size_limit=67108864",
    "temp_store=MEMORY",
)


@attrs.frozen
class Database:
    """One writing and checkpointing connection, and a few that only read.

    Exactly one connection may write: SQLite up to 3.51.2 can damage its file when two connections write
    or checkpoint at once, so that the writing connection holds a lock file against other processes too.
    """

    place: str
    """What to call the database in a sentence; never holds a password."""
    write: sa.Engine
    read: sa.Engine
    _lock: FileLock | None = None

    def close(self) -> None:
        """Close all connections, the writing one last: the last to close checkpoints. May be called again."""
        if self.read is not self.write:
            self.read.dispose()
        self.write.dispose()
        if self._lock is not None:
            self._lock.release()

    def unavailable(self, error: Exception) -> Unavailable:
        """A failure of the database in one sentence that names the knob."""
        return _unavailable(self.place, error)


def open_database(url: str | sa.URL) -> Database:
    """Open ``url`` for writing and reading; the file and its folder are made when missing, for us alone.

    Raises ``Invalid`` for a URL that names no database we can use, ``Unavailable`` when the place cannot be
    written. Connections open on first use.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise Invalid("--database-url is not a URL such as sqlite:///path/to/database.db") from None
    if parsed.get_backend_name() != "sqlite":
        raise Invalid(
            f"--database-url names {parsed.get_backend_name()}; this version keeps state in sqlite only"
        )
    if parsed.database in (None, "", ":memory:"):
        engine = _engine(lambda: _connect(":memory:", uri=False), "BEGIN IMMEDIATE", size=1)
        return Database("in memory", engine, engine)
    return _open_file(Path(str(parsed.database)).absolute())


def _open_file(path: Path) -> Database:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)  # the side files take their mode from it
    except OSError as error:
        raise _unwritable(str(path), error.strerror or str(error)) from error
    lock = FileLock(path.with_name(path.name + ".lock"))
    location = quote(str(path))

    def writing() -> sqlite3.Connection:
        lock.acquire()
        connection = _connect(f"file:{location}?mode=rw", uri=True)
        for pragma in _SQLITE_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def reading() -> sqlite3.Connection:
        return _connect(f"file:{location}?mode=ro", uri=True)

    return Database(
        str(path), _engine(writing, "BEGIN IMMEDIATE", size=1), _engine(reading, "BEGIN", size=READERS), lock
    )


def _connect(name: str, *, uri: bool) -> sqlite3.Connection:
    return sqlite3.connect(
        name,
        uri=uri,
        timeout=BUSY_SECONDS,
        isolation_level=None,  # the driver begins nothing behind our back
        check_same_thread=False,  # threads come and go; the pool keeps to one at a time
    )


def _engine(connect: Callable[[], sqlite3.Connection], begin: str, *, size: int) -> sa.Engine:
    def creator(dialect: sa.Dialect, entry: ConnectionPoolEntry) -> DBAPIConnection:
        return connect()  # type: ignore[return-value]  # sqlite3 is not typed as DBAPI by SQLAlchemy

    engine = sa.create_engine(
        "sqlite://", poolclass=QueuePool, pool_size=size, max_overflow=0, pool_timeout=30
    )

    @sa.event.listens_for(engine, "do_connect")
    def _open(
        dialect: sa.Dialect, record: ConnectionPoolEntry, args: Any, parameters: Any
    ) -> DBAPIConnection:
        return creator(dialect, record)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def insert_returning(
    conn: sa.Connection, table: sa.Table, key: sa.Column[int], rows: Sequence[dict[str, Any]]
) -> list[int]:
    """Insert ``rows`` and return the keys that the database gave them, in the same order."""
    if conn.dialect.insert_executemany_returning_sort_by_parameter_order:
        statement = sa.insert(table).returning(key, sort_by_parameter_order=True)
        return list(conn.execute(statement, rows).scalars())
    return [conn.execute(sa.insert(table), row).inserted_primary_key[0] for row in rows]  # type: ignore[index]  # never None with an autoincrement key


def add_or_insert(
    conn: sa.Connection,
    table: sa.Table,
    rows: list[dict[str, Any]],
    *,
    key: Iterable[str],
    adding: Iterable[str],
    replacing: Iterable[str],
) -> None:
    """Insert rows; where ``key`` exists already, add to the columns ``adding`` and replace ``replacing``."""
    if conn.dialect.name != "sqlite":
        raise NotImplementedError(conn.dialect.name)
    statement = sqlite.insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=list(key),
        set_={
            **{name: table.c[name] + statement.excluded[name] for name in adding},
            **{name: statement.excluded[name] for name in replacing},
        },
    )
    conn.execute(statement, rows)


def _unwritable(place: str, why: str) -> Unavailable:
    return Unavailable(
        f"The database {place} cannot be written ({why}): give the user that runs gpustack write access to the"
        " file and its folder, or choose another place with --data-dir or --database-url"
    )


def _unavailable(place: str, error: Exception) -> Unavailable:
    cause = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Unavailable(
            f"The database {place} is damaged or is no database ({cause}): restore it from a backup, or move it"
            " away to start afresh"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return _unwritable(place, str(cause))
    if code == sqlite3.SQLITE_FULL:
        return Unavailable(
            f"The disk that holds the database {place} is full: free some space, then try again", _RETRY_AFTER
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"The database {place} is held by another program: try again", _RETRY_AFTER)
    return Unavailable(f"The database {place} failed ({cause}): try again", _RETRY_AFTER)

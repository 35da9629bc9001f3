"""A database by its URL: its connections, its dialect, and its failures as errors of GPUStack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import attrs
import sqlalchemy as sa

from gpustack.config.url import login_fault, plain_database_url
from gpustack.errors import GpustackError, Invalid, Unavailable

from .dialect import RETRY_AFTER, Connections, Dialect, PoolSettings, told_by

READERS = PoolSettings()


@attrs.frozen
class Database:
    """The connections to a database and the dialect that uses them."""

    dialect: Dialect
    connections: Connections

    @property
    def place(self) -> str:
        """The name of the database in messages; it never contains a password."""
        return self.connections.place

    @property
    def write(self) -> sa.Engine:
        return self.connections.write

    @property
    def read(self) -> sa.Engine:
        return self.connections.read

    @property
    def shared(self) -> bool:
        """Whether other servers may write to it too."""
        return self.dialect.shared

    def migrating(self) -> AbstractContextManager[sa.Connection]:
        """A transaction during which nobody else changes the schema."""
        return self.dialect.migrating(self.connections)

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A transaction that reads the state of one moment, however long it takes."""
        with self.dialect.snapshot(self.connections) as conn:
            yield conn

    def look(self) -> None:
        """Connect, and check that the database can be used. Blocks; raises ``Invalid`` or ``Unavailable``."""
        try:
            with self.read.connect() as conn:
                self.dialect.check(conn, self.place)
        except sa.exc.DBAPIError as error:
            raise self.fault(error) from error

    def close(self) -> None:
        """Close all connections, the writing one last, because the last one that closes checkpoints. May be called
        again."""
        ways = self.connections
        for engine in (ways.slow, ways.read):
            if engine is not ways.write:
                engine.dispose()
        ways.write.dispose()
        if ways.lock is not None:
            ways.lock.release()

    def fault(self, error: BaseException) -> GpustackError:
        """A failure of the database as an error whose sentence names what to change."""
        cause = getattr(error, "orig", None) or error
        known = self.dialect.fault(self.place, cause)
        if known is not None:
            return known
        if isinstance(error, sa.exc.DataError):
            return Invalid(f"The database cannot keep a value ({told_by(cause)})")
        return Unavailable(f"The database {self.place} failed ({told_by(cause)}): try again", RETRY_AFTER)

    def unavailable(self, error: BaseException) -> Unavailable:
        """As ``fault``, but always ``Unavailable``, for callers that can only try again."""
        found = self.fault(error)
        return found if isinstance(found, Unavailable) else Unavailable(str(found), RETRY_AFTER)


def open_database(url: str | sa.URL, pool: PoolSettings = READERS) -> Database:
    """The database at ``url``, as users write it. Connections open on first use.

    Raises ``Invalid`` for a URL of an unknown database or one whose driver is missing, ``Unavailable`` when the file
    cannot be written.
    """
    parsed, dialect = _parsed(url)
    return Database(dialect, dialect.open(parsed, pool))


def open_shared(url: str | sa.URL, pool: PoolSettings = READERS) -> Database | None:
    """As ``open_database``, but ``None`` for a database of a single server, which is not opened."""
    parsed, dialect = _parsed(url)
    return Database(dialect, dialect.open(parsed, pool)) if dialect.shared else None


def _parsed(url: str | sa.URL) -> tuple[sa.URL, Dialect]:
    if isinstance(url, str):
        url = plain_database_url(url, Path.home())
        if sentence := login_fault(url):
            raise Invalid(f"--database-url {sentence}")
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        raise Invalid("--database-url is not a URL such as sqlite:///path/to/database.db") from None
    dialect = _dialect(backend)
    if dialect is None:
        raise Invalid(f"--database-url names {backend}; it may be sqlite, postgresql or mysql")
    return parsed, dialect


def _dialect(backend: str) -> Dialect | None:
    # Imported late: each brings a part of SQLAlchemy that only its users need.
    if backend == "sqlite":
        from .dialects.sqlite import Sqlite

        return Sqlite()
    if backend == "postgresql":
        from .dialects.postgresql import PostgreSql

        return PostgreSql()
    if backend in ("mysql", "mariadb"):
        from .dialects.mysql import MySql

        return MySql()
    return None

"""The interface of a kind of database, implemented by each module in `dialects/`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import attrs
import sqlalchemy as sa

from gpustack.errors import GpustackError
from gpustack.text import printable, redacted

from .lock import FileLock

RETRY_AFTER = 1.0
"""Seconds after which a client may try again when the database is not available."""


@attrs.frozen(kw_only=True)
class PoolSettings:
    """The pool of reading connections: ``size`` are kept open, ``overflow`` more are opened when needed; ``timeout``
    are the seconds to wait for one."""

    size: int = 5
    overflow: int = 10
    timeout: float = 30.0
    echo: bool = False
    """Log every statement, without its values: they hold hashes of secrets."""

    @property
    def most(self) -> int:
        return self.size + self.overflow


@attrs.frozen(kw_only=True, repr=False)
class Connections:
    """The connection pools of one database. Connections open on first use."""

    place: str
    """The name of the database in messages; it never contains a password."""
    write: sa.Engine
    read: sa.Engine
    """Read only."""
    slow: sa.Engine
    """For dumps, loads and migrations: statements have no time limit, connections are not kept open."""
    lock: FileLock | None = None

    def __repr__(self) -> str:
        return f"<Connections to {self.place}>"  # an engine would show all parameters of its URL


class Dialect(Protocol):
    """One file in ``dialects/``: a class named in ``database.py``."""

    shared: bool
    """Whether several servers may write at once, so that commits of others have to be polled."""
    clock: str
    """SQL for milliseconds since 1970 by the clock of the database."""

    def open(self, url: sa.URL, pool: PoolSettings) -> Connections:
        """Raises ``Invalid`` for a URL that cannot be used, ``Unavailable`` when its place cannot be."""

    def check(self, conn: sa.Connection, place: str) -> None:
        """Raise ``Invalid`` when the server is too old or set up so that records would be damaged."""

    def migrating(self, connections: Connections) -> AbstractContextManager[sa.Connection]:
        """A transaction during which nobody else changes the schema; raises ``Unavailable`` when the wait for it is too
        long."""

    def snapshot(self, connections: Connections) -> AbstractContextManager[sa.Connection]:
        """A transaction that reads the state of one moment, however long it takes."""

    def upsert(
        self, table: sa.Table, *, key: Sequence[str], adding: Sequence[str], replacing: Sequence[str]
    ) -> sa.Insert:
        """An insert that, where ``key`` exists, adds to the columns ``adding`` and replaces ``replacing``."""

    def next_id(self, conn: sa.Connection, table: sa.Table) -> int:
        """The id of the next row, if nothing is inserted meanwhile."""

    def set_next_id(self, conn: sa.Connection, table: sa.Table, number: int) -> None:
        """Let the id of the next row of ``table`` be at least ``number``. May end the transaction."""

    def fault(self, place: str, cause: Any) -> GpustackError | None:
        """An error of the driver as an error whose sentence names what to change; ``None`` when it is not a known
        one."""


def merged(
    table: sa.Table,
    inserted: Any,
    adding: Sequence[str],
    replacing: Sequence[str],
) -> dict[str, sa.ColumnElement[Any]]:
    """What an upsert sets where the row exists: the columns ``adding`` grow by the inserted values, others are
    replaced."""
    return {
        **{name: table.c[name] + inserted[name] for name in adding},
        **{name: inserted[name] for name in replacing},
    }


def told_by(cause: object) -> str:
    """The message of a driver's exception in one line, without the error number that comes first in some drivers."""
    told: tuple[object, ...] = getattr(cause, "args", ())
    match told:
        case (int(), str(sentence)):
            said = sentence
        case _:
            said = str(cause)
    return printable(redacted(" ".join(said.split())))

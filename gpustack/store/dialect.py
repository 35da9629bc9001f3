"""What one kind of database must be able to do for us: the contract of `dialects/`."""

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
"""Seconds after which a client may try again when the database was away."""


@attrs.frozen(kw_only=True)
class PoolSettings:
    """Connections that read: ``size`` kept open, ``overflow`` more when needed, seconds to wait for one."""

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
    """The ways into one database. They open on first use."""

    place: str
    """What to call the database in a sentence; never holds a password."""
    write: sa.Engine
    read: sa.Engine
    """Refuses to write."""
    slow: sa.Engine
    """For reading or moving everything: no statement is cut short, nothing is kept open."""
    lock: FileLock | None = None

    def __repr__(self) -> str:
        return f"<Connections to {self.place}>"  # an engine would show all parameters of its URL


class Dialect(Protocol):
    """One file in ``dialects/``: a class named in ``database.py``."""

    shared: bool
    """Several servers may write at once: what others committed has to be looked for."""
    clock: str
    """SQL for milliseconds since 1970 by the clock of the database."""

    def open(self, url: sa.URL, pool: PoolSettings) -> Connections:
        """Raises ``Invalid`` for a URL that cannot be used, ``Unavailable`` when its place cannot be."""

    def check(self, conn: sa.Connection, place: str) -> None:
        """Raise ``Invalid`` when the server is too old or set up so that records would be damaged."""

    def migrating(self, connections: Connections) -> AbstractContextManager[sa.Connection]:
        """A transaction in which nobody else changes the schema; raises ``Unavailable`` when it has to wait
        for too long."""

    def snapshot(self, connections: Connections) -> AbstractContextManager[sa.Connection]:
        """A transaction that reads everything as of one moment, however long it takes."""

    def upsert(
        self, table: sa.Table, *, key: Sequence[str], adding: Sequence[str], replacing: Sequence[str]
    ) -> sa.Insert:
        """An insert that, where ``key`` exists, adds to the columns ``adding`` and replaces ``replacing``."""

    def next_id(self, conn: sa.Connection, table: sa.Table) -> int:
        """The id that the next row gets, if nothing is inserted meanwhile."""

    def set_next_id(self, conn: sa.Connection, table: sa.Table, number: int) -> None:
        """Let the next row of ``table``, empty or not, get ``number`` at least. May end the transaction."""

    def fault(self, place: str, cause: Any) -> GpustackError | None:
        """An error of the driver in a sentence that names the knob; ``None`` when it is nothing special."""


def told_by(cause: object) -> str:
    """What a driver says of a failure, in one line. Of a number and a sentence the sentence is for people."""
    told: tuple[object, ...] = getattr(cause, "args", ())
    match told:
        case (int(), str(sentence)):
            said = sentence
        case _:
            said = str(cause)
    return printable(redacted(" ".join(said.split())))

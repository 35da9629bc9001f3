"""Reads all records of a database."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import attrs
import sqlalchemy as sa

from gpustack.domain.record import Record
from gpustack.errors import Unavailable
from gpustack.text import said_by

from .codec import UNREADABLE, codec
from .table import specs, tables

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class UnreadableRow:
    """A row that cannot be read as a record. ``reason`` is one line."""

    table: str
    id: int
    reason: str


def records(conn: sa.Connection, place: str) -> Iterator[Record]:
    """All records that belong to the snapshot, table by table, sorted by id; raises ``Unavailable`` that names the
    first row that cannot be read."""
    for row in rows(conn):
        if isinstance(row, UnreadableRow):
            raise Unavailable(
                f"The database {place} is damaged: row {row.id} of {row.table} cannot be read ({row.reason}):"
                " restore it from a backup"
            )
        yield row


def rows(conn: sa.Connection) -> Iterator[Record | UnreadableRow]:
    """As ``records``, with an ``UnreadableRow`` for each row that cannot be read."""
    for cls, spec in specs.items():
        if spec.in_memory:
            yield from _of(conn, cls)


def log_unread(row: UnreadableRow) -> None:
    """Log a row that cannot be read; called once for each."""
    log.error(
        "A row of the database cannot be read and is left out; all others are served. Mend or delete it, or restore a "
        "backup: table=%s id=%s reason=%s",
        row.table,
        row.id,
        row.reason,
    )


def _of(conn: sa.Connection, cls: type[Record]) -> Iterator[Record | UnreadableRow]:
    table = tables[cls]
    every = sa.select(table).order_by(table.c.id)
    try:
        found = conn.execute(every).all()
    except (*UNREADABLE, sa.exc.DBAPIError):  # the driver cannot read one of the rows
        ids = conn.scalars(sa.select(table.c.id).order_by(table.c.id)).all()
        for key in ids:
            yield _one(conn, cls, key)
        return
    for row in found:
        try:
            yield codec(cls).record(dict(row._mapping))
        except UNREADABLE as error:
            yield _unread(cls, row.id, error)


def _one(conn: sa.Connection, cls: type[Record], key: int) -> Record | UnreadableRow:
    table = tables[cls]
    try:
        row = conn.execute(sa.select(table).where(table.c.id == key)).one()
        return codec(cls).record(dict(row._mapping))
    except (*UNREADABLE, sa.exc.DBAPIError) as error:
        if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
            raise
        return _unread(cls, key, error)


def _unread(cls: type[Record], key: int, error: Exception) -> UnreadableRow:
    beneath = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    reason = f"{type(beneath).__name__}: {said_by(beneath)}"
    return UnreadableRow(table=specs[cls].name, id=key, reason=reason)

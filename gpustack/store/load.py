"""All records of a database, read at once."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from gpustack.domain.record import Record
from gpustack.errors import Unavailable

from .codec import codec
from .table import specs, tables


def records(conn: sa.Connection, place: str) -> Iterator[Record]:
    """Every record of the snapshot, table by table in the order of ids; raises ``Unavailable`` naming a row that
    cannot be read."""
    for cls, spec in specs.items():
        if spec.in_memory:
            yield from _of(conn, cls, place)


def _of(conn: sa.Connection, cls: type[Record], place: str) -> Iterator[Record]:
    table = tables[cls]
    for row in conn.execute(sa.select(table).order_by(table.c.id)):
        try:
            yield codec(cls).record(dict(row._mapping))
        except (ValueError, TypeError, KeyError) as error:
            raise Unavailable(
                f"The database {place} is damaged: row {row.id} of {table.name} cannot be read ({error!r}):"
                " restore it from a backup"
            ) from error

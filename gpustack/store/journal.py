"""The table of changes: every commit appends to it, and the database numbers what is appended."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
import sqlalchemy as sa

from gpustack.domain.change import Change, ChangeKind
from gpustack.domain.record import Record

from .codec import from_json
from .engine import insert_returning
from .table import changes, class_of, specs

KEPT = 10_000
KEPT_FOR = timedelta(days=7)
"""Changes hold what their records held, password hashes too: they are not kept for ever in a quiet cluster."""


@attrs.frozen
class Alteration:
    """A change before the database has numbered it."""

    kind: ChangeKind
    record: Record
    before: Record | None
    json: str
    """The record, written out where a fault in it is the fault of one work."""

    def numbered(self, revision: int) -> Change:
        return Change(revision, self.kind, specs[type(self.record)].name, self.record, self.before)


def append(conn: sa.Connection, alterations: Sequence[Alteration], now: datetime) -> list[Change]:
    """Write the alterations of a transaction in their order; returns them numbered."""
    if not alterations:
        return []
    rows = [
        {
            "at": now,
            "kind": alteration.kind.value,
            "table_name": specs[type(alteration.record)].name,
            "record_id": alteration.record.id,
            "record": alteration.json,
        }
        for alteration in alterations
    ]
    revisions = insert_returning(conn, changes, changes.c.revision, rows)
    return [
        alteration.numbered(revision) for alteration, revision in zip(alterations, revisions, strict=True)
    ]


def trim(conn: sa.Connection, now: datetime) -> None:
    """Drop changes beyond those kept. The newest always stays: revisions go on from it."""
    newest = conn.execute(sa.select(sa.func.max(changes.c.revision))).scalar()
    if newest is None:
        return
    too_old = sa.and_(changes.c.at < now - KEPT_FOR, changes.c.revision < newest)
    conn.execute(sa.delete(changes).where(sa.or_(changes.c.revision <= newest - KEPT, too_old)))


def newest(conn: sa.Connection, count: int) -> tuple[int, list[Change]]:
    """At most ``count`` last changes in their order, and the revision since which they are complete.

    They end where one cannot be read, written by a program that kept other records. ``before`` is unknown.
    """
    query = sa.select(changes).order_by(changes.c.revision.desc()).limit(count)
    found: deque[Change] = deque()
    floor = revision(conn)
    for row in conn.execute(query):
        try:
            record = from_json(class_of[row.table_name], row.record)
        except (KeyError, ValueError, TypeError):
            return row.revision, list(found)
        found.appendleft(Change(row.revision, ChangeKind(row.kind), row.table_name, record))
        floor = row.revision - 1
    return floor, list(found)


def revision(conn: sa.Connection) -> int:
    """The last revision given, 0 in a new database."""
    return conn.execute(sa.select(sa.func.max(changes.c.revision))).scalar() or 0

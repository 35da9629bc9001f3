"""The table of changes: every commit appends to it, numbered from a head that only one writer holds at a time."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
import sqlalchemy as sa

from gpustack.domain.record import Change, ChangeKind, Record

from .codec import UNREADABLE, from_json
from .table import changes, class_of, heads, specs

KEPT = 10_000
KEPT_CHARACTERS = 64 << 20
"""Of all records in it, so that large ones do not fill the disk."""
KEPT_FOR = timedelta(days=7)
"""Changes hold what their records held, password hashes too: they are not kept for ever in a quiet cluster."""

_HEAD = sa.select(heads.c.revision).where(heads.c.id == 1)


@attrs.frozen
class PendingChange:
    """A change before it is numbered."""

    kind: ChangeKind
    record: Record
    before: Record | None
    json: str
    """The record, written out where a fault in it is the fault of one work."""

    def numbered(self, revision: int) -> Change:
        name = specs[type(self.record)].name
        return Change(revision, self.kind, name, self.record, self.before, sys.getsizeof(self.json))


def revision(conn: sa.Connection) -> int:
    """The last revision given, 0 in a new database."""
    return conn.execute(_HEAD).scalar() or 0


def hold(conn: sa.Connection) -> int:
    """The last revision given; until the end of this transaction nobody else gives or hears a later one.

    Without this, of two transactions the one with the later revisions could become visible first, and whoever
    looked in between would never hear of the other.
    """
    return conn.execute(_HEAD.with_for_update()).scalar() or 0


def append(
    conn: sa.Connection, alterations: Sequence[PendingChange], last: int, now: datetime
) -> list[Change]:
    """Write the alterations of a transaction that holds the head at ``last``; returns them numbered."""
    if not alterations:
        return []
    numbered = [alteration.numbered(last + count) for count, alteration in enumerate(alterations, 1)]
    rows = [
        {
            "revision": change.revision,
            "at": now,
            "kind": change.kind.value,
            "table_name": change.table,
            "record_id": change.record.id,
            "record": alteration.json,
        }
        for change, alteration in zip(numbered, alterations, strict=True)
    ]
    conn.execute(sa.insert(changes), rows)
    conn.execute(sa.update(heads).where(heads.c.id == 1).values(revision=numbered[-1].revision))
    return numbered


def trim(conn: sa.Connection, now: datetime) -> None:
    """Drop changes beyond those kept. The newest always stays."""
    last = revision(conn)
    too_old = sa.and_(changes.c.at < now - KEPT_FOR, changes.c.revision < last)
    too_many = changes.c.revision <= max(last - KEPT, _too_large(conn, last))
    conn.execute(sa.delete(changes).where(sa.or_(too_many, too_old)))


def _too_large(conn: sa.Connection, last: int) -> int:
    """The newest revision that has no room any more beside those after it."""
    characters = sa.func.length(changes.c.record)
    query = sa.select(changes.c.revision, characters).where(changes.c.revision > last - KEPT)
    room = KEPT_CHARACTERS
    for row in conn.execute(query.order_by(changes.c.revision.desc())).all():
        number, taken = int(row[0]), int(row[1])
        room -= taken
        if room < 0 and number < last:
            return number
    return 0


def forget(conn: sa.Connection, skip: int) -> None:
    """Drop every change and leave out ``skip`` revisions: whoever knew one has to list again."""
    conn.execute(sa.delete(changes))
    conn.execute(sa.update(heads).where(heads.c.id == 1).values(revision=heads.c.revision + skip))


def between(conn: sa.Connection, since: int, last: int) -> list[Change | None] | None:
    """Every change after ``since`` up to ``last``, in order; ``None`` for one of a table that we do not know.

    The answer as a whole is ``None`` when they are not all there or one cannot be read, which is also so for one of
    an older program that lacks a field of ours. ``before`` is unknown.
    """
    within = sa.and_(changes.c.revision > since, changes.c.revision <= last)
    rows = conn.execute(sa.select(changes).where(within).order_by(changes.c.revision)).all()
    if not 0 <= last - since == len(rows):
        return None
    try:
        return [_change(row) if row.table_name in class_of else None for row in rows]
    except UNREADABLE:
        return None


def newest(conn: sa.Connection, count: int) -> tuple[int, list[Change]]:
    """At most ``count`` last changes in their order, and the revision since which they are complete.

    They end where one cannot be read, written by a program that kept other records. ``before`` is unknown.
    """
    query = sa.select(changes).order_by(changes.c.revision.desc()).limit(count)
    found: deque[Change] = deque()
    floor = revision(conn)
    for row in conn.execute(query):
        if row.revision != floor:
            break
        try:
            found.appendleft(_change(row))
        except UNREADABLE:
            break
        floor = row.revision - 1
    return floor, list(found)


def _change(row: sa.Row[*tuple[object, ...]]) -> Change:
    record = from_json(class_of[row.table_name], row.record)
    return Change(row.revision, ChangeKind(row.kind), row.table_name, record, size=sys.getsizeof(row.record))

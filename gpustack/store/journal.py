"""The table of changes. Every commit appends its changes, with revisions counted from the head, a row that is locked
meanwhile."""

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
"""Bound on the JSON of all changes kept, so that large records do not fill the disk."""
KEPT_FOR = timedelta(days=7)
"""Changes contain whole records, with password hashes, so they are not kept for ever in a quiet cluster either."""

_HEAD = sa.select(heads.c.revision).where(heads.c.id == 1)


@attrs.frozen
class PendingChange:
    """A change that has no revision yet."""

    kind: ChangeKind
    record: Record
    before: Record | None
    json: str
    """The record as JSON. It is made within the work, so that a record that cannot be encoded fails that work alone."""

    def numbered(self, revision: int) -> Change:
        name = specs[type(self.record)].name
        return Change(revision, self.kind, name, self.record, self.before, sys.getsizeof(self.json))


def revision(conn: sa.Connection) -> int:
    """The last revision assigned, 0 in a new database."""
    return conn.execute(_HEAD).scalar() or 0


def lock_head(conn: sa.Connection) -> int:
    """Lock the head and return the last revision. Until this transaction ends, nobody else assigns or reads a later
    one.

    Without the lock, the later of two transactions could become visible first, and a server that polled in between
    would miss the changes of the other.
    """
    return conn.execute(_HEAD.with_for_update()).scalar() or 0


def append(conn: sa.Connection, pending: Sequence[PendingChange], last: int, now: datetime) -> list[Change]:
    """Append the changes of a transaction that has locked the head at revision ``last``; returns them with
    revisions."""
    if not pending:
        return []
    numbered = [one.numbered(last + count) for count, one in enumerate(pending, 1)]
    rows = [
        {
            "revision": change.revision,
            "at": now,
            "kind": change.kind.value,
            "table_name": change.table,
            "record_id": change.record.id,
            "record": one.json,
        }
        for change, one in zip(numbered, pending, strict=True)
    ]
    conn.execute(sa.insert(changes), rows)
    conn.execute(sa.update(heads).where(heads.c.id == 1).values(revision=numbered[-1].revision))
    return numbered


def trim(conn: sa.Connection, now: datetime) -> None:
    """Delete changes that are too many, too large together or too old. The newest always stays."""
    last = revision(conn)
    too_old = sa.and_(changes.c.at < now - KEPT_FOR, changes.c.revision < last)
    too_many = changes.c.revision <= max(last - KEPT, _too_large(conn, last))
    conn.execute(sa.delete(changes).where(sa.or_(too_many, too_old)))


def _too_large(conn: sa.Connection, last: int) -> int:
    """The newest revision that does not fit into ``KEPT_CHARACTERS`` with those after it; 0 if all fit."""
    characters = sa.func.length(changes.c.record)
    query = sa.select(changes.c.revision, characters).where(changes.c.revision > last - KEPT)
    room = KEPT_CHARACTERS
    for row in conn.execute(query.order_by(changes.c.revision.desc())).all():
        number, taken = int(row[0]), int(row[1])
        room -= taken
        if room < 0 and number < last:
            return number
    return 0


def clear(conn: sa.Connection, skip: int) -> None:
    """Delete all changes and skip ``skip`` revisions, so that every watcher has to list again."""
    conn.execute(sa.delete(changes))
    conn.execute(sa.update(heads).where(heads.c.id == 1).values(revision=heads.c.revision + skip))


def between(conn: sa.Connection, since: int, last: int) -> list[Change | None] | None:
    """The changes after ``since`` up to ``last``, in order; an item is ``None`` where its table is unknown here.

    Returns ``None`` when some are missing or one cannot be read, e.g. one of an older program that lacks a field.
    ``before`` is not set.
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
    """The revision since which changes are complete, and these changes, at most the last ``count``, in order.

    They begin after the last one that cannot be read, which another version has written. ``before`` is not set.
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

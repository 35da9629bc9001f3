"""Copies all records from one database to another, of any kinds, and verifies the copy before the commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import attrs
import sqlalchemy as sa

from gpustack.errors import Invalid, Unavailable

from . import journal, server_registry
from .database import Database
from .migration import current, known, migrate
from .table import CLUSTER_TABLES, changes, cluster_secrets, heads, metadata

CHUNK = 500
"""Rows per statement, and in memory at a time."""
SKIPPED = 1_000_000
"""Revisions that are skipped after a restore, because watchers may know later ones than those restored."""

_COPIED = [table for table in metadata.sorted_tables if table not in CLUSTER_TABLES]


@attrs.frozen
class TransferReport:
    """What was copied: rows by table, and the last revision."""

    rows: Mapping[str, int]
    revision: int

    @property
    def records(self) -> int:
        """Rows of all tables but the table of changes."""
        return sum(count for table, count in self.rows.items() if table != changes.name)


@attrs.define
class _RowDigest:
    """Count and hash of rows, to compare two sets of rows without keeping them."""

    count: int = 0
    _hash: Any = attrs.field(factory=hashlib.sha256)

    def over(self, rows: Iterator[Sequence[Any]]) -> Iterator[Sequence[Any]]:
        for row in rows:
            self.count += 1
            self._hash.update(repr(tuple(row)).encode())
            yield row

    @property
    def value(self) -> tuple[int, str]:
        return self.count, self._hash.hexdigest()


def transfer(
    source: Database, target: Database, *, replace: bool = False, resume: bool = True
) -> TransferReport:
    """Copy everything in ``source``, as of one moment, to ``target`` in one transaction. Blocks.

    The schema of the target is brought up to date; that of the source must be current. New ids continue after those of
    the source. Records that the target has are deleted with ``replace``, and refused without it. Watchers can resume at
    the target unless something was replaced or ``resume`` is false. Secrets of the cluster are copied only between two
    shared databases; otherwise the first server writes them from its data directory. Raises ``Invalid``, also while a
    server runs on the target, and ``Unavailable``.
    """
    with _named(source), source.snapshot() as reading:
        _require_current(reading, source.place)
        with _named(target):
            migrate(target)
            with target.migrating() as conn:  # may end the transaction, so it has one of its own
                for table in metadata.sorted_tables:
                    if "id" in table.c and table is not heads:
                        target.dialect.set_next_id(conn, table, source.dialect.next_id(reading, table))
            with target.migrating() as writing:
                _refuse_served(writing, target)
                moved = _copy(reading, writing, target.place, replace=replace, resume=resume)
                writing.execute(sa.delete(cluster_secrets))
                if source.shared and target.shared:
                    _copy_table(reading, writing, cluster_secrets, target.place)
                return moved


def refuse_served(database: Database) -> None:
    """Raise ``Invalid`` while a server runs on the database: its further writes would be missed. Blocks."""
    with _named(database), database.read.connect() as conn:
        _require_current(conn, database.place)
        _refuse_served(conn, database)


def _refuse_served(conn: sa.Connection, database: Database) -> None:
    there = server_registry.live_servers(conn, database.dialect)
    if there:
        raise Invalid(
            f"Servers run on the database {database.place} ({', '.join(one.url for one in there)}): stop them first;"
            f" one that was killed counts as gone {server_registry.LIVE_FOR:.0f} s later"
        )


def _copy(
    reading: sa.Connection, writing: sa.Connection, place: str, *, replace: bool, resume: bool
) -> TransferReport:
    last = journal.lock_head(writing)
    held = [table.name for table in _COPIED if writing.execute(sa.select(table).limit(1)).first() is not None]
    if held and not replace:
        raise Invalid(
            f"The database {place} holds records already ({', '.join(held[:5])}): choose an empty one, or give"
            " --replace to lose what it holds"
        )
    for table in _COPIED if held else ():
        writing.execute(sa.delete(table))
    rows = {table.name: _copy_table(reading, writing, table, place) for table in _COPIED}
    revision = max(journal.revision(reading), last)
    writing.execute(sa.update(heads).where(heads.c.id == 1).values(revision=revision))
    if held or not resume:
        journal.clear(writing, SKIPPED)
        rows[changes.name] = 0
    return TransferReport(rows, journal.revision(writing))


def _copy_table(reading: sa.Connection, writing: sa.Connection, table: sa.Table, place: str) -> int:
    read, written = _RowDigest(), _RowDigest()
    rows = read.over(_rows(reading, table))
    names = [column.name for column in table.c]
    while chunk := [dict(zip(names, row, strict=True)) for row in islice(rows, CHUNK)]:
        writing.execute(sa.insert(table), chunk)
    for _ in written.over(_rows(writing, table)):
        pass
    if read.value != written.value:
        raise Unavailable(
            f"The database {place} does not give back what was written to {table.name} ({written.count} of"
            f" {read.count} rows): nothing was kept"
        )
    return read.count


def _rows(conn: sa.Connection, table: sa.Table) -> Iterator[Sequence[Any]]:
    query = sa.select(table).order_by(*table.primary_key.columns).execution_options(yield_per=CHUNK)
    with conn.execute(query) as found:
        yield from found


def _require_current(conn: sa.Connection, place: str) -> None:
    present, latest = current(conn), known()[-1]
    if present is None:
        raise Invalid(f"The database {place} holds no records of gpustack: look at the name")
    if present != latest:
        raise Invalid(
            f"The database {place} has schema {present}, this gpustack has {latest}: use the gpustack that wrote"
            " it, or start this one on it once"
        )


@contextmanager
def _named(database: Database) -> Iterator[None]:
    """Converts errors of SQLAlchemy into errors of GPUStack."""
    try:
        yield
    except sa.exc.IntegrityError as error:
        raise Invalid(
            f"The database {database.place} takes two records for one, whose names differ in trailing spaces"
            f" perhaps: {' '.join(str(error.orig).split())}"
        ) from error
    except sa.exc.SQLAlchemyError as error:
        raise database.fault(error) from error

"""The writer's copy of all records: what transactions read and change, with undo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import attrs

from gpustack.domain.record import Record
from gpustack.domain.snapshot import Snapshot

from .load import UnreadableRow, log_unread
from .table import class_of, specs

R = TypeVar("R", bound=Record)

Columns = tuple[str, ...]


@attrs.frozen
class _UndoEntry:
    """What a change replaced."""

    cls: type[Record]
    id: int
    before: Record | None


@attrs.define(eq=False, repr=False)
class WorkingCopy:
    """Tables as dicts, with an index for each unique constraint. For one thread at a time.

    A table that is part of a snapshot is not changed again: the next change copies it first (copy on write).
    """

    _tables: dict[str, dict[int, Record]] = attrs.field(factory=lambda: {name: {} for name in class_of})
    _handed_out: set[str] = attrs.field(factory=set)
    _unique: dict[tuple[str, Columns], dict[tuple[Any, ...], int]] = attrs.field(factory=dict)
    _steps: list[_UndoEntry] = attrs.field(factory=list)
    _unread: Mapping[str, frozenset[int]] = attrs.field(factory=dict)

    def load(self, rows: Iterable[Record | UnreadableRow]) -> None:
        """Add stored records, sorted by id; of rows that cannot be read only the ids are kept."""
        unread: list[UnreadableRow] = []
        for row in rows:
            if isinstance(row, UnreadableRow):
                unread.append(row)
            else:
                self._store(type(row), row.id, row)
        self.leave_out(unread)
        self.keep()

    def leave_out(self, unread: Iterable[UnreadableRow]) -> None:
        """Set the rows that cannot be read now; those that are new are logged."""
        found: dict[str, frozenset[int]] = {}
        for row in unread:
            if row.id not in self._unread.get(row.table, ()):
                log_unread(row)
            found[row.table] = found.get(row.table, frozenset()) | {row.id}
        self._unread = found

    def all(self, cls: type[R]) -> Mapping[int, R]:
        """All records of a class by id, as they are now: a view that later changes do not alter."""
        self._handed_out.add(specs[cls].name)
        return self._live(cls)

    def get(self, cls: type[R], key: int) -> R | None:
        return self._live(cls).get(key)

    def find(self, cls: type[R], fields: Mapping[str, object]) -> R | None:
        """The first record whose fields equal those given."""
        spec, columns = specs[cls], tuple(fields)
        if columns in spec.unique and None not in fields.values():
            key = self._unique.get((spec.name, columns), {}).get(tuple(fields.values()))
            return None if key is None else self.get(cls, key)
        wanted = fields.items()
        for record in self._live(cls).values():
            if all(getattr(record, name) == value for name, value in wanted):
                return record
        return None

    def clash(self, record: Record) -> Columns | None:
        """The columns of a unique constraint that the record would violate, if there is one."""
        spec = specs[type(record)]
        for columns in spec.unique:
            value = _value(record, columns)
            owner = None if value is None else self._unique.get((spec.name, columns), {}).get(value)
            if owner is not None and owner != record.id:
                return columns
        return None

    def put(self, record: Record) -> None:
        """Insert or replace a record."""
        self._steps.append(_UndoEntry(type(record), record.id, self.get(type(record), record.id)))
        self._store(type(record), record.id, record)

    def remove(self, record: Record) -> None:
        self._steps.append(_UndoEntry(type(record), record.id, record))
        self._store(type(record), record.id, None)

    def mark(self) -> int:
        """The present position, for ``undo``."""
        return len(self._steps)

    def undo(self, mark: int = 0) -> None:
        """Undo all changes since ``mark``, or since the last ``keep``."""
        while len(self._steps) > mark:
            step = self._steps.pop()
            self._store(step.cls, step.id, step.before)

    def keep(self) -> None:
        """Forget how to undo the changes so far."""
        self._steps.clear()

    def snapshot(self, revision: int) -> Snapshot:
        """All records as they are now."""
        self._handed_out.update(self._tables)
        return Snapshot(revision, dict(self._tables), self._unread)

    def _live(self, cls: type[R]) -> Mapping[int, R]:
        return self._tables[specs[cls].name]  # type: ignore[return-value]  # tables are keyed by class

    def _store(self, cls: type[Record], key: int, after: Record | None) -> None:
        spec = specs[cls]
        table = self._tables[spec.name]
        if spec.name in self._handed_out:
            table = self._tables[spec.name] = dict(table)
            self._handed_out.discard(spec.name)
        before = table.get(key)
        for columns in spec.unique:
            index = self._unique.setdefault((spec.name, columns), {})
            old = None if before is None else _value(before, columns)
            if old is not None and index.get(old) == key:
                del index[old]
            new = None if after is None else _value(after, columns)
            if new is not None:
                index[new] = key
        if after is None:
            table.pop(key, None)
        elif before is None and table and key < next(reversed(table)):
            self._tables[spec.name] = dict(sorted({**table, key: after}.items()))  # undo of a deletion
        else:
            table[key] = after


def _value(record: Record, columns: Columns) -> tuple[Any, ...] | None:
    """The values of the columns, or ``None`` where one is NULL, because unique constraints ignore NULL."""
    value = tuple(getattr(record, name) for name in columns)
    return None if None in value else value

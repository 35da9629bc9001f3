"""The writer's own copy of the records: what transactions read, and can be taken back."""

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
    """One alteration: what stood there before."""

    cls: type[Record]
    id: int
    before: Record | None


@attrs.define(eq=False, repr=False)
class WorkingCopy:
    """Tables as dicts, with what is unique indexed. For one thread at a time.

    A table handed out in a snapshot is never altered again: the first alteration after that copies it.
    """

    _tables: dict[str, dict[int, Record]] = attrs.field(factory=lambda: {name: {} for name in class_of})
    _handed_out: set[str] = attrs.field(factory=set)
    _unique: dict[tuple[str, Columns], dict[tuple[Any, ...], int]] = attrs.field(factory=dict)
    _steps: list[_UndoEntry] = attrs.field(factory=list)
    _unread: Mapping[str, frozenset[int]] = attrs.field(factory=dict)

    def load(self, rows: Iterable[Record | UnreadableRow]) -> None:
        """Take in stored records, in the order of their ids; those that cannot be read are known by their ids."""
        unread: list[UnreadableRow] = []
        for row in rows:
            if isinstance(row, UnreadableRow):
                unread.append(row)
            else:
                self._store(type(row), row.id, row)
        self.leave_out(unread)
        self.keep()

    def leave_out(self, unread: Iterable[UnreadableRow]) -> None:
        """These are all the rows that cannot be read now; the log hears of those that are new."""
        found: dict[str, frozenset[int]] = {}
        for row in unread:
            if row.id not in self._unread.get(row.table, ()):
                log_unread(row)
            found[row.table] = found.get(row.table, frozenset()) | {row.id}
        self._unread = found

    def all(self, cls: type[R]) -> Mapping[int, R]:
        """Every record of a class, never to change."""
        self._handed_out.add(specs[cls].name)
        return self._live(cls)

    def get(self, cls: type[R], key: int) -> R | None:
        return self._live(cls).get(key)

    def find(self, cls: type[R], fields: Mapping[str, object]) -> R | None:
        """The first record whose fields are all equal to those given."""
        wanted = fields.items()
        for record in self._live(cls).values():
            if all(getattr(record, name) == value for name, value in wanted):
                return record
        return None

    def clash(self, record: Record) -> Columns | None:
        """The columns in which another record has what must be unique, if there is one."""
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
        """Where we are, for ``take_back``."""
        return len(self._steps)

    def take_back(self, mark: int = 0) -> None:
        """Undo everything since ``mark``, or since the last ``keep``."""
        while len(self._steps) > mark:
            step = self._steps.pop()
            self._store(step.cls, step.id, step.before)

    def keep(self) -> None:
        """What was done stays done."""
        self._steps.clear()

    def snapshot(self, revision: int) -> Snapshot:
        """Everything as it is now, never to change."""
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
            self._tables[spec.name] = dict(sorted({**table, key: after}.items()))  # a deletion taken back
        else:
            table[key] = after


def _value(record: Record, columns: Columns) -> tuple[Any, ...] | None:
    """What must be unique, or ``None`` where a part is unknown: the database lets those repeat."""
    value = tuple(getattr(record, name) for name in columns)
    return None if None in value else value

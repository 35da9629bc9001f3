"""The transaction that a work gets: reads, and checked writes, in the writer's thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar, overload

import attrs
import sqlalchemy as sa

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState, Party, allowed
from gpustack.domain.model import Model
from gpustack.domain.record import UNSAVED, ChangeKind, Record
from gpustack.domain.revision import ModelRevision
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.usage import ModelUsage
from gpustack.errors import AlreadyExists, Conflict, NotFound

from . import event_history, revision_history
from .audit_history import forget
from .codec import codec, to_json
from .dialect import Dialect
from .journal import PendingChange
from .table import noun, specs, tables
from .usage_history import add
from .working_copy import Columns, WorkingCopy

R = TypeVar("R", bound=Record)

_SAVEPOINT = "work"
_BY_ID_AND_VERSION: Mapping[type[Record], tuple[sa.Update, sa.Delete]] = {
    cls: (
        sa.update(table).where(table.c.id == sa.bindparam("old_id"), table.c.version == sa.bindparam("old")),
        sa.delete(table).where(table.c.id == sa.bindparam("old_id"), table.c.version == sa.bindparam("old")),
    )
    for cls, table in tables.items()
}
_INSERT: Mapping[type[Record], sa.Insert] = {cls: sa.insert(table) for cls, table in tables.items()}


@attrs.define(eq=False, repr=False)
class Tx:
    """Reads see everything committed and the work's own writes; no other transaction runs meanwhile.

    Valid during one call of one work, which must not keep it. If the work raises, its writes are undone.
    """

    _conn: sa.Connection
    _dialect: Dialect
    _copy: WorkingCopy
    revision: int
    """The revision before this transaction."""
    now: datetime
    """The date of its writes."""
    histories: list[Record] = attrs.field(factory=list)
    """What it has added to tables that are not in memory."""
    _pending: list[PendingChange] = attrs.field(factory=list)
    _mark: int = 0
    _writing: bool = False
    _over: bool = False

    def __attrs_post_init__(self) -> None:
        self._mark = self._copy.mark()

    # -- reading

    @property
    def snapshot(self) -> Snapshot:
        """All records as of now, with this work's writes; later writes do not change it."""
        return self._copy.snapshot(self.revision)

    def get(self, cls: type[R], key: int | None) -> R | None:
        """One record, or ``None``."""
        _in_memory(cls)
        return None if key is None else self._copy.get(cls, key)

    def all(self, cls: type[R]) -> Mapping[int, R]:
        """All records of a class by id, as of now; later writes do not change the mapping."""
        _in_memory(cls)
        return self._copy.all(cls)

    def find(self, cls: type[R], **fields: object) -> R | None:
        """The first record whose fields equal those given."""
        _in_memory(cls)
        return self._copy.find(cls, fields)

    # -- writing

    def insert(self, record: R) -> R:
        """Store a new record; returns it with id, version and dates.

        Raises ``AlreadyExists`` when a unique value is taken. An instance must be ``PENDING``.
        """
        if record.id != UNSAVED:
            raise ValueError(f"this {noun(type(record))} has an id already: {record.id}")
        if isinstance(record, ModelInstance) and record.state is not InstanceState.PENDING:
            raise Conflict(f"A model instance starts as pending, not as {record.state.value}")
        new = attrs.evolve(record, version=1, created_at=self.now, updated_at=self.now)
        self._refuse_clash(new)
        row = codec(type(new)).row(new)
        key = self._begin_writing().execute(_INSERT[type(new)], row).inserted_primary_key
        assert key is not None
        new = attrs.evolve(new, id=key[0])
        self._note(ChangeKind.CREATED, new, None)
        return new

    def update(self, record: R, *, by: Party | None = None) -> R:
        """Replace a record that was not changed since it was read; returns the record as stored.

        A record without differences is not written and gets no revision. Raises ``NotFound``, ``Conflict`` when the
        record was changed meanwhile or when ``by`` (by default nobody) may not bring an instance into its new state,
        and ``AlreadyExists``.
        """
        before = self._current(record)
        after = attrs.evolve(record, created_at=before.created_at, updated_at=before.updated_at)
        if isinstance(before, ModelInstance) and isinstance(after, ModelInstance):
            after = attrs.evolve(after, state_since=_state_since(before, after, by, self.now))
        if after == before:
            return before
        after = attrs.evolve(after, version=before.version + 1, updated_at=self.now)
        self._refuse_clash(after)
        statement, _ = _BY_ID_AND_VERSION[type(record)]
        values = codec(type(record)).changed(before, after)
        self._execute_one(statement.values(values), before)
        self._note(ChangeKind.UPDATED, after, before)
        return after

    def change(self, cls: type[R], key: int, *, by: Party | None = None, **fields: Any) -> R:
        """Set fields of the record as it is now; otherwise as ``update``."""
        current = self.get(cls, key)
        if current is None:
            raise NotFound(f"There is no {noun(cls)} {key}")
        return self.update(attrs.evolve(current, **fields), by=by)

    def move(
        self, instance: ModelInstance, state: InstanceState, *, by: Party, message: str = "", **fields: Any
    ) -> ModelInstance:
        """Bring an instance, as it was read, into ``state`` and set its message and further fields; as ``update``."""
        return self.update(attrs.evolve(instance, state=state, state_message=message, **fields), by=by)

    @overload
    def delete(self, record: Record) -> None: ...
    @overload
    def delete(self, record: type[Record], key: int) -> None: ...
    def delete(self, record: Record | type[Record], key: int | None = None) -> None:
        """Delete a record that was not changed since it was read, or the one with an id in any version.

        Raises ``NotFound``, ``Conflict``.
        """
        if isinstance(record, Record):
            before = self._current(record)
        else:
            found = self.get(record, key)
            if found is None:
                raise NotFound(f"There is no {noun(record)} {key}")
            before = found
        _, statement = _BY_ID_AND_VERSION[type(before)]
        self._execute_one(statement, before)
        self._note(ChangeKind.DELETED, before, before)

    def add_usage(self, rows: Iterable[ModelUsage]) -> None:
        """Add counts to those of the same day, user, key, model and operation. Makes no revision."""
        add(self._begin_writing(), self._dialect, rows, self.now)

    def forget_events(self, before: datetime, most: int) -> int:
        """Delete audit events before that instant, the oldest first; returns how many. Makes no revision."""
        return forget(self._begin_writing(), before, most)

    def forget_cluster_events(self, before: datetime) -> None:
        """Delete the events of the cluster before that instant, and those that are too many of one object. Makes no
        revision."""
        event_history.forget(self._begin_writing(), before)

    def add_revision(self, revision: ModelRevision, former: Model, most: int) -> None:
        """Keep a revision as the next of its model, after ``former`` where it is the first; of a model the newest
        ``most`` are kept. Makes no revision of the store."""
        for one in revision_history.following(self._begin_writing(), revision, former):
            self.insert(one)
            if one.number > most:
                revision_history.forget_older(self._begin_writing(), one.model_id, one.number - most)

    def forget_revisions(self, model_id: int) -> None:
        """Delete all revisions of a model. Makes no revision of the store."""
        revision_history.forget_all(self._begin_writing(), model_id)

    # -- for the writer

    def end(self, *, keep: bool) -> list[PendingChange]:
        """End this transaction: keep its changes and return them, or undo all of them."""
        self._over = True
        if keep:
            if self._writing:
                self._conn.exec_driver_sql(f"RELEASE SAVEPOINT {_SAVEPOINT}")
            return self._pending
        self._copy.undo(self._mark)
        if self._writing:
            self._conn.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            self._conn.exec_driver_sql(f"RELEASE SAVEPOINT {_SAVEPOINT}")
        return []

    # -- within

    def _begin_writing(self) -> sa.Connection:
        if self._over:
            raise RuntimeError("this transaction is over: a work must not keep it")
        if not self._writing:
            self._conn.exec_driver_sql(f"SAVEPOINT {_SAVEPOINT}")
            self._writing = True
        return self._conn

    def _execute_one(self, statement: sa.Update | sa.Delete, before: Record) -> None:
        found = self._begin_writing().execute(statement, {"old_id": before.id, "old": before.version})
        if found.rowcount != 1:
            raise _changed_meanwhile(before)

    def _current(self, record: R) -> R:
        before = self.get(type(record), record.id)
        if before is None:
            raise NotFound(f"There is no {noun(type(record))} {record.id}")
        if before.version != record.version:
            raise _changed_meanwhile(before)
        return before

    def _note(self, kind: ChangeKind, record: Record, before: Record | None) -> None:
        if not specs[type(record)].in_memory:
            self.histories.append(record)
            return
        if kind is ChangeKind.DELETED:
            self._copy.remove(record)
        else:
            self._copy.put(record)
        self._pending.append(PendingChange(kind, record, before, to_json(record)))

    def _refuse_clash(self, record: Record) -> None:
        columns = self._copy.clash(record)
        if columns is not None:
            raise AlreadyExists(_taken(record, columns))


def _in_memory(cls: type[Record]) -> None:
    if not specs[cls].in_memory:
        raise TypeError(f"{cls.__name__} is a history: read it with Store.query")


def _state_since(
    before: ModelInstance, after: ModelInstance, by: Party | None, now: datetime
) -> datetime | None:
    """When the state of ``after`` began; raises ``Conflict`` when ``by`` may not bring it there."""
    if before.state is after.state:
        return before.state_since
    if by is not None and allowed(before.state, after.state, by):
        return now
    who = (
        "only a move by the party concerned may bring it"
        if by is None
        else f"the {by.value} may not bring it"
    )
    raise Conflict(
        f"Model instance {before.name!r} is {before.state.value}; {who} from there to {after.state.value}"
    )


def _changed_meanwhile(record: Record) -> Conflict:
    return Conflict(
        f"The {noun(type(record))} {record.id} was changed by somebody else since it was read: read it again"
    )


def _taken(record: Record, columns: Columns) -> str:
    shown = {field.name for field in attrs.fields(type(record)) if field.repr}
    parts = [f"{name} {getattr(record, name)!r}" for name in columns if name in shown]
    which = f" with {' and '.join(parts)}" if parts else ""
    return f"A {noun(type(record))}{which} exists already"

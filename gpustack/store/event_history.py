"""Events: those of each commit, added with it; queries on them; and the removal of old ones."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import attrs
import sqlalchemy as sa

from gpustack.domain.event import ClusterEvent, EventSeverity, ObjectKind
from gpustack.domain.record import Record
from gpustack.domain.worker import Worker
from gpustack.nursery.quarantine import Quarantine
from gpustack.policy.event import RecordChange, context_of, events_of

from .codec import codec
from .journal import PendingChange
from .table import tables

MOST = 10_000
"""Events kept in all."""
MOST_OF_ONE = 50
"""Events kept of one object."""
_REMEMBERED = 4096
_TRIM_EVERY = 1000
"""Events between two removals of those that are too many."""
_TABLE = tables[ClusterEvent]
_INSERT = sa.insert(_TABLE)


@attrs.define(eq=False, repr=False)
class EventLog:
    """Makes the events of works and adds them to their commit, all in one statement. For the writer's thread."""

    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("events", clock=time.monotonic))
    _last: OrderedDict[tuple[ObjectKind, int], tuple[str, str]] = attrs.field(factory=OrderedDict)
    """The kind and text of the last event of each object: the same again is not told, such as why one waits."""
    _added: int = 0

    def of(
        self,
        pending: Sequence[PendingChange],
        histories: Iterable[Record],
        now: datetime,
        worker: Callable[[int], Worker | None],
    ) -> list[ClusterEvent]:
        """The events of a work. A fault in making them is logged, and the work is committed without."""

        def worker_name(key: int) -> str:
            found = worker(key)
            return f"worker {key}" if found is None else found.name

        with self._faults.row("a work"):
            changes = [RecordChange(one.kind, one.record, one.before) for one in pending]
            return events_of(changes, context_of(histories, now, worker_name))
        return []

    def append(self, conn: sa.Connection, events: Iterable[ClusterEvent]) -> None:
        """Add events to the present transaction."""
        rows = []
        for event in events:
            key, said = (event.object_kind, event.object_id), (event.kind, event.text)
            if self._last.get(key) == said:
                continue
            with self._faults.row(key):
                dated = attrs.evolve(event, version=1, created_at=event.at, updated_at=event.at)
                rows.append(codec(ClusterEvent).row(dated))
                self._last[key] = said
                self._last.move_to_end(key)
        while len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        if rows:
            conn.execute(_INSERT, rows)
        self._added += len(rows)
        if self._added >= _TRIM_EVERY:
            self._added = 0
            forget_most(conn)

    def undone(self) -> None:
        """The commit failed: what it would have told is told again."""
        self._last.clear()


@attrs.frozen(kw_only=True)
class EventFilter:
    """Which events are selected; a field that is ``None`` selects all. ``since`` and ``until`` are not included."""

    object_kind: ObjectKind | None = None
    object_id: int | None = None
    model_id: int | None = None
    worker_id: int | None = None
    severities: frozenset[EventSeverity] | None = None
    kind: str | None = None
    """A kind, or its beginning up to the dot (``instance.``)."""
    after: int | None = None
    """Those with greater ids."""
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        columns = _TABLE.c
        made: list[sa.ColumnElement[bool]] = []
        if self.object_kind is not None:
            made.append(columns.object_kind == self.object_kind.value)
        for name in ("object_id", "model_id", "worker_id"):
            if getattr(self, name) is not None:
                made.append(columns[name] == getattr(self, name))
        if self.severities is not None:
            made.append(columns.severity.in_([one.value for one in self.severities]))
        if self.kind is not None and self.kind.endswith("."):
            made.append(columns.kind.startswith(self.kind, autoescape=True))
        elif self.kind is not None:
            made.append(columns.kind == self.kind)
        if self.after is not None:
            made.append(columns.id > self.after)
        if self.since is not None:
            made.append(columns.at > self.since)
        if self.until is not None:
            made.append(columns.at < self.until)
        return made

    def selects(self, event: ClusterEvent) -> bool:
        """The same of one event, but for ``after``."""
        tests = (
            self.object_kind in (None, event.object_kind),
            self.object_id in (None, event.object_id),
            self.model_id in (None, event.model_id),
            self.worker_id in (None, event.worker_id),
            self.severities is None or event.severity in self.severities,
            self.kind is None or event.kind == self.kind or _begins(event.kind, self.kind),
            self.since is None or event.at > self.since,
            self.until is None or event.at < self.until,
        )
        return all(tests)


def _begins(kind: str, wanted: str) -> bool:
    return wanted.endswith(".") and kind.startswith(wanted)


def count(conn: sa.Connection, wanted: EventFilter) -> int:
    """How many events are selected."""
    query = sa.select(sa.func.count()).select_from(_TABLE).where(*wanted.conditions())
    return conn.execute(query).scalar_one()


def page(conn: sa.Connection, wanted: EventFilter, *, skip: int, most: int) -> list[ClusterEvent]:
    """``most`` events after the first ``skip``, the newest first."""
    query = sa.select(_TABLE).where(*wanted.conditions()).order_by(_TABLE.c.id.desc())
    return _events(conn, query.offset(skip).limit(most))


def after(conn: sa.Connection, key: int, most: int) -> list[ClusterEvent]:
    """The first ``most`` events with greater ids, the oldest first."""
    query = sa.select(_TABLE).where(_TABLE.c.id > key).order_by(_TABLE.c.id)
    return _events(conn, query.limit(most))


def last(conn: sa.Connection) -> int:
    """The id of the newest event, 0 where there is none."""
    return conn.execute(sa.select(sa.func.max(_TABLE.c.id))).scalar() or 0


def forget_most(conn: sa.Connection) -> None:
    """Delete all but about the newest ``MOST``."""
    conn.execute(sa.delete(_TABLE).where(_TABLE.c.id <= last(conn) - MOST))


def forget(conn: sa.Connection, before: datetime) -> None:
    """Delete the events before that instant, and of each object all but the newest ``MOST_OF_ONE``."""
    columns = _TABLE.c
    conn.execute(sa.delete(_TABLE).where(columns.at < before))
    group = (columns.object_kind, columns.object_id)
    many = sa.select(*group).group_by(*group).having(sa.func.count() > MOST_OF_ONE)
    for kind, key in conn.execute(many).all():
        same = sa.and_(columns.object_kind == kind, columns.object_id == key)
        newest = sa.select(columns.id).where(same).order_by(columns.id.desc())
        oldest_kept = conn.execute(newest.offset(MOST_OF_ONE - 1).limit(1)).scalar_one()
        conn.execute(sa.delete(_TABLE).where(same, columns.id < oldest_kept))


def _events(conn: sa.Connection, query: sa.Select[*tuple[object, ...]]) -> list[ClusterEvent]:
    return [codec(ClusterEvent).record(dict(row._mapping)) for row in conn.execute(query)]

"""Queries on the audit trail: pages, iteration over all events, and removal of old ones."""

from __future__ import annotations

from datetime import datetime

import attrs
import sqlalchemy as sa

from gpustack.domain.audit import AuditEvent, AuditOutcome

from .codec import codec
from .table import tables

_TABLE = tables[AuditEvent]


@attrs.frozen(kw_only=True)
class AuditFilter:
    """Which events are selected; a field that is ``None`` selects all. ``since`` is included, ``until`` is not."""

    actor: str | None = None
    """A name, or an id in digits."""
    action: str | None = None
    """An action, or its beginning up to the dot (``model.``)."""
    outcome: AuditOutcome | None = None
    means: str | None = None
    address: str | None = None
    target_type: str | None = None
    target_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    search: str | None = None
    """A part of the names, the action or the address, case ignored."""

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        columns = _TABLE.c
        made: list[sa.ColumnElement[bool]] = []
        if self.actor is not None:
            named = columns.actor_name == self.actor
            is_id = self.actor.isascii() and self.actor.isdigit() and len(self.actor) < 19
            made.append(sa.or_(named, columns.actor_id == int(self.actor)) if is_id else named)
        if self.action is not None and self.action.endswith("."):
            made.append(columns.action.startswith(self.action, autoescape=True))
        elif self.action is not None:
            made.append(columns.action == self.action)
        if self.outcome is not None:
            made.append(columns.outcome == self.outcome.value)
        for name in ("means", "address", "target_type", "target_id"):
            if getattr(self, name) is not None:
                made.append(columns[name] == getattr(self, name))
        if self.since is not None:
            made.append(columns.at >= self.since)
        if self.until is not None:
            made.append(columns.at < self.until)
        if self.search:
            made.append(sa.or_(*(_contains(columns[name], self.search) for name in _SEARCHED)))
        return made


_SEARCHED = ("actor_name", "target_name", "action", "address")


def _contains(column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
    return sa.func.lower(column).contains(text.lower(), autoescape=True)


def count(conn: sa.Connection, wanted: AuditFilter) -> int:
    """How many events are selected."""
    query = sa.select(sa.func.count()).select_from(_TABLE).where(*wanted.conditions())
    return conn.execute(query).scalar_one()


def page(conn: sa.Connection, wanted: AuditFilter, *, skip: int, most: int) -> list[AuditEvent]:
    """``most`` events after the first ``skip``, the newest first."""
    query = sa.select(_TABLE).where(*wanted.conditions()).order_by(_TABLE.c.at.desc(), _TABLE.c.id.desc())
    return _events(conn, query.offset(skip).limit(most))


def older(
    conn: sa.Connection, wanted: AuditFilter, *, than: tuple[datetime, int] | None, most: int
) -> list[AuditEvent]:
    """The newest events before the instant and id ``than``, or the newest of all. Passing the last event of each answer
    reads the whole list, even while events are added."""
    conditions = wanted.conditions()
    if than is not None:
        at, key = than
        same = sa.and_(_TABLE.c.at == at, _TABLE.c.id < key)
        conditions.append(sa.or_(_TABLE.c.at < at, same))
    query = sa.select(_TABLE).where(*conditions).order_by(_TABLE.c.at.desc(), _TABLE.c.id.desc())
    return _events(conn, query.limit(most))


def forget(conn: sa.Connection, before: datetime, most: int) -> int:
    """Delete events before that instant, the oldest first and ``most`` at a time; returns how many were deleted."""
    # Not one statement: MySQL takes no LIMIT in a sub-query.
    query = sa.select(_TABLE.c.id).where(_TABLE.c.at < before).order_by(_TABLE.c.at).limit(most)
    keys = list(conn.execute(query).scalars())
    if keys:
        conn.execute(sa.delete(_TABLE).where(_TABLE.c.id.in_(keys)))
    return len(keys)


def _events(conn: sa.Connection, query: sa.Select[*tuple[object, ...]]) -> list[AuditEvent]:
    return [codec(AuditEvent).record(dict(row._mapping)) for row in conn.execute(query)]

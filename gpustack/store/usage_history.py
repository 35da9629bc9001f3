"""Usage per day: adds to the counts, and queries sums of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import attrs
import sqlalchemy as sa

from gpustack.domain.usage import ModelUsage

from .codec import codec
from .dialect import Dialect
from .table import specs, tables

_TABLE = tables[ModelUsage]
_COUNTS = ("prompt_token_count", "completion_token_count", "request_count", "failed_count")
_AT_ONCE = 500
"""Ids in one statement."""
_NAMES = ("username", "model_name", "updated_at")
_SUMS = [sa.func.coalesce(sa.func.sum(_TABLE.c[name]), 0).label(name) for name in _COUNTS]


def add(conn: sa.Connection, dialect: Dialect, rows: Iterable[ModelUsage], now: datetime) -> None:
    """Add the counts of ``rows`` to the stored ones, whose names are replaced."""
    values = [
        codec(ModelUsage).row(attrs.evolve(row, version=1, created_at=now, updated_at=now)) for row in rows
    ]
    if values:
        (key,) = specs[ModelUsage].unique
        statement = dialect.upsert(_TABLE, key=key, adding=(*_COUNTS, "version"), replacing=_NAMES)
        conn.execute(statement, values)


@attrs.frozen(kw_only=True)
class UsageSum:
    """Sums of the counts of some days."""

    prompt_token_count: int
    completion_token_count: int
    request_count: int
    failed_count: int


@attrs.frozen(kw_only=True)
class DailyUsage(UsageSum):
    """The counts of one day in UTC."""

    date: date


@attrs.frozen(kw_only=True)
class UsageShare(UsageSum):
    """The counts of one user or model, with its id and latest name."""

    id: int
    name: str


GROUPS: Mapping[str, str] = {
    "day": "date",
    "user": "user_id",
    "key": "api_key_id",
    "model": "model_id",
    "operation": "operation",
}
"""By what usage can be summed, with the column of each."""


@attrs.frozen(kw_only=True)
class UsageGroup(UsageSum):
    """The counts of one day, user, key, model or operation, or of several of these together; ``None`` is what was
    summed over. Names are the latest that are on record."""

    date: date | None = None
    user_id: int | None = None
    api_key_id: int | None = None
    model_id: int | None = None
    operation: str | None = None
    username: str = ""
    model_name: str = ""
    last_used_at: datetime | None = None


def sums(
    conn: sa.Connection,
    start: date,
    end: date,
    *,
    by: Collection[str],
    user_ids: Collection[int] = (),
    model_ids: Collection[int] = (),
    limit: int,
) -> list[UsageGroup]:
    """Sums from ``start`` to ``end`` inclusive by some of ``GROUPS``, at most ``limit``: the newest days and the most
    tokens first."""
    columns = [_TABLE.c[GROUPS[name]] for name in GROUPS if name in by]
    tokens = sa.func.sum(_TABLE.c.prompt_token_count + _TABLE.c.completion_token_count)
    newest, last = sa.func.max(_TABLE.c.id).label("newest"), sa.func.max(_TABLE.c.updated_at).label("last")
    query = sa.select(*columns, newest, last, *_SUMS).where(_within(start, end), *_of(user_ids, model_ids))
    order = [_TABLE.c.date.desc()] if "day" in by else []
    query = query.group_by(*columns).order_by(*order, tokens.desc(), *columns).limit(limit)
    found = [row for row in conn.execute(query).all() if row.newest is not None]
    names = _names(conn, [row.newest for row in found])
    return [_group(row, names, [column.name for column in columns]) for row in found]


def _names(conn: sa.Connection, keys: Sequence[int]) -> dict[int, tuple[str, str]]:
    """The names of account and model in those rows."""
    made: dict[int, tuple[str, str]] = {}
    for first in range(0, len(keys), _AT_ONCE):
        some = _TABLE.c.id.in_(keys[first : first + _AT_ONCE])
        for row in conn.execute(sa.select(_TABLE.c.id, _TABLE.c.username, _TABLE.c.model_name).where(some)):
            made[row.id] = row.username, row.model_name
    return made


def _group(
    row: sa.Row[*tuple[object, ...]], names: Mapping[int, tuple[str, str]], columns: Sequence[str]
) -> UsageGroup:
    username, model_name = names.get(row.newest, ("", ""))
    fields: dict[str, Any] = {name: row._mapping[name] for name in columns} | _counts(row)
    if "user_id" in columns:
        fields["username"] = username
    if "model_id" in columns:
        fields["model_name"] = model_name
    return UsageGroup(**fields, last_used_at=row.last)


def daily(
    conn: sa.Connection,
    start: date,
    end: date,
    *,
    user_ids: Collection[int] = (),
    model_ids: Collection[int] = (),
) -> list[DailyUsage]:
    """Sums of each day from ``start`` to ``end`` inclusive that has any usage, oldest first.

    Ids select users and models; without ids all are selected.
    """
    query = sa.select(_TABLE.c.date, *_SUMS).where(_within(start, end), *_of(user_ids, model_ids))
    query = query.group_by(_TABLE.c.date).order_by(_TABLE.c.date)
    return [DailyUsage(date=row.date, **_counts(row)) for row in conn.execute(query)]


def by_user(conn: sa.Connection, start: date, end: date, *, limit: int = 10) -> list[UsageShare]:
    """The users with the most tokens, most first; requests without a user (id -1) are left out."""
    return _shares(conn, "user_id", "username", start, end, limit)


def by_model(conn: sa.Connection, start: date, end: date, *, limit: int = 10) -> list[UsageShare]:
    """The models with the most tokens, most first."""
    return _shares(conn, "model_id", "model_name", start, end, limit)


def rows(
    conn: sa.Connection,
    start: date,
    end: date,
    *,
    user_ids: Collection[int] = (),
    model_ids: Collection[int] = (),
    newest_first: bool = False,
    limit: int | None = None,
) -> list[ModelUsage]:
    """The rows from ``start`` to ``end`` inclusive, sorted by day and id, at most ``limit``."""
    order = (_TABLE.c.date, _TABLE.c.id)
    query = sa.select(_TABLE).where(_within(start, end), *_of(user_ids, model_ids)).limit(limit)
    query = query.order_by(*(column.desc() for column in order)) if newest_first else query.order_by(*order)
    return [codec(ModelUsage).record(dict(row._mapping)) for row in conn.execute(query)]


def _within(start: date, end: date) -> sa.ColumnElement[bool]:
    return _TABLE.c.date.between(start, end)


def _of(user_ids: Collection[int], model_ids: Collection[int]) -> list[sa.ColumnElement[bool]]:
    wanted = ((_TABLE.c.user_id, user_ids), (_TABLE.c.model_id, model_ids))
    return [column.in_(ids) for column, ids in wanted if ids]


def _counts(row: sa.Row[*tuple[object, ...]]) -> dict[str, int]:
    return {name: int(row._mapping[name]) for name in _COUNTS}  # a sum is a decimal in some databases


def _shares(conn: sa.Connection, key: str, name: str, start: date, end: date, limit: int) -> list[UsageShare]:
    """Sums by ``key``; the name is taken from its newest row."""
    tokens = sa.func.sum(_TABLE.c.prompt_token_count + _TABLE.c.completion_token_count)
    column = _TABLE.c[key]
    query = (
        sa.select(column.label("key"), sa.func.max(_TABLE.c.id).label("newest"), *_SUMS)
        .where(_within(start, end), column >= 0)
        .group_by(column)
        .order_by(tokens.desc(), column)
        .limit(limit)
    )
    found = conn.execute(query).all()
    newest = [row.newest for row in found]
    names = dict(conn.execute(sa.select(_TABLE.c.id, _TABLE.c[name]).where(_TABLE.c.id.in_(newest))).all())
    return [UsageShare(id=row.key, name=names[row.newest], **_counts(row)) for row in found]

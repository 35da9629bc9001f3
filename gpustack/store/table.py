"""The tables. Those of records are derived from the record classes in ``domain``, so that a new one needs no line
here."""

from __future__ import annotations

import types
from collections.abc import Mapping
from datetime import date, datetime
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import sqlalchemy as sa

from gpustack.domain.record import Record, TableSpec, record_classes
from gpustack.plugins import siblings

from .column import BigId, Count, Flag, LongText, Name, Real, ShortText, Utc

siblings("gpustack.domain")  # an import of the modules registers their record classes

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_SCALARS: Mapping[type, sa.types.TypeEngine[Any]] = {
    bool: Flag,
    int: Count,
    float: Real,
    str: LongText,
    datetime: Utc(),
    date: sa.Date(),
}


@attrs.frozen
class ColumnShape:
    """How a field is stored: the type inside ``X | None``, and whether it may be ``None``."""

    type: Any
    nullable: bool

    @property
    def is_enum(self) -> bool:
        return isinstance(self.type, type) and issubclass(self.type, Enum)

    @property
    def is_document(self) -> bool:
        """Whether it is stored as JSON text: everything that is neither a scalar nor an enumeration."""
        return self.type not in _SCALARS and not self.is_enum


def shapes(cls: type[Record]) -> dict[str, ColumnShape]:
    """The fields of a record class, in order."""
    hints = get_type_hints(cls)
    return {field.name: _shape(hints[field.name]) for field in attrs.fields(cls)}


def _shape(hint: Any) -> ColumnShape:
    if get_origin(hint) in (Union, types.UnionType):
        inner = [arm for arm in get_args(hint) if arm is not type(None)]
        if len(inner) == 1 and len(get_args(hint)) == 2:
            return ColumnShape(inner[0], True)
    return ColumnShape(hint, False)


def _column(name: str, shape: ColumnShape, spec: TableSpec) -> sa.Column[Any]:
    if name == "id":
        return sa.Column(name, BigId, primary_key=True, autoincrement=True)
    kind = ShortText if shape.is_enum else _SCALARS.get(shape.type, LongText)
    if shape.type is str and (name in spec.indexed or any(name in columns for columns in spec.unique)):
        kind = Name
    return sa.Column(name, kind, nullable=shape.nullable)


def _table(cls: type[Record], spec: TableSpec) -> sa.Table:
    return sa.Table(
        spec.name,
        metadata,
        *(_column(name, shape, spec) for name, shape in shapes(cls).items()),
        *(sa.UniqueConstraint(*columns) for columns in spec.unique),
        *(sa.Index(None, name) for name in spec.indexed),
        sqlite_autoincrement=True,  # else SQLite reuses the id of the last record when it is deleted
    )


specs: Mapping[type[Record], TableSpec] = record_classes()
tables: Mapping[type[Record], sa.Table] = {cls: _table(cls, spec) for cls, spec in specs.items()}
class_of: Mapping[str, type[Record]] = {spec.name: cls for cls, spec in specs.items() if spec.in_memory}
"""The record classes that belong to the snapshot, by table."""

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("revision", BigId, primary_key=True, autoincrement=True),
    sa.Column("at", Utc(), nullable=False),
    sa.Column("kind", ShortText, nullable=False),
    sa.Column("table_name", ShortText, nullable=False),
    sa.Column("record_id", Count, nullable=False),
    sa.Column("record", LongText, nullable=False),
    sqlite_autoincrement=True,
)

heads = sa.Table(
    "heads",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=False),
    sa.Column("revision", Count, nullable=False),
)
"""One row: the last revision assigned. It is locked during each commit, so that revisions become visible in order."""

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", Name, primary_key=True),
    sa.Column("holder", Name, nullable=False),
    sa.Column("term", Count, nullable=False),
    sa.Column("expires", Count, nullable=False),
)
"""Leases: holder, term and end in milliseconds since 1970 by the clock of the database."""

servers = sa.Table(
    "servers",
    metadata,
    sa.Column("server_uuid", Name, primary_key=True),
    sa.Column("run", Name, nullable=False),
    sa.Column("url", LongText, nullable=False),
    sa.Column("version_running", LongText, nullable=False),
    sa.Column("seen", Count, nullable=False),
)
"""The registry of servers: where workers reach each, and its last heartbeat, in time as in ``leases``."""

cluster_secrets = sa.Table(
    "cluster_secrets",
    metadata,
    sa.Column("name", Name, primary_key=True),
    sa.Column("value", LongText, nullable=False),
)
"""Secrets common to all servers on this database. They are in no snapshot, change or answer."""

heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("worker_id", BigId, primary_key=True, autoincrement=False),
    sa.Column("heard", Count, nullable=False),
)
"""When each worker was last heard by any server, in time as in ``leases``; some seconds late."""

worker_loads = sa.Table(
    "worker_loads",
    metadata,
    sa.Column("server_uuid", Name, primary_key=True),
    sa.Column("written", Count, nullable=False),
    sa.Column("loads", LongText, nullable=False),
)
"""What each server knows of the loads of its workers, for the others; in time as in ``leases``, some seconds late."""

CLUSTER_TABLES = frozenset({heads, leases, servers, cluster_secrets, heartbeats, worker_loads})
"""Tables that are neither records nor their history. They belong to the database and are not copied with the
records."""


def noun(cls: type[Record]) -> str:
    """The name of a record of this class in messages."""
    return specs[cls].name.removesuffix("s").replace("_", " ")

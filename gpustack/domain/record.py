"""What all records share: id, version, dates and a table; and how a change of one is described."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

import attrs

UNSAVED = 0
"""The id of a record that is not stored yet."""
REPORTED = "reported"
"""Metadata of a field that the owner of the record reports again by itself. If the stored value cannot be read, the
default is used until then."""


@attrs.frozen(kw_only=True)
class Record:
    """A value that lives in a table.

    ``id`` is assigned by the store and never reused. ``version`` grows with every write; updates compare it
    (compare-and-set). Dates are aware UTC and set by the store.
    """

    id: int = UNSAVED
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None


@attrs.frozen(kw_only=True)
class TableSpec:
    """How a record class is stored: its table, its unique sets of columns and its indexes."""

    name: str
    unique: tuple[tuple[str, ...], ...] = ()
    indexed: tuple[str, ...] = ()
    in_memory: bool = True
    """Part of the snapshot. Histories that only grow (usage, audit) are read by query instead."""


R = TypeVar("R", bound=Record)

_SPECS: dict[type[Record], TableSpec] = {}


def stored(
    table: str,
    *,
    unique: tuple[tuple[str, ...], ...] = (),
    indexed: tuple[str, ...] = (),
    in_memory: bool = True,
) -> Callable[[type[R]], type[R]]:
    """Declare that a class is stored in ``table``; ``gpustack.store`` makes tables and codecs from these
    declarations."""

    def declare(cls: type[R]) -> type[R]:
        _SPECS[cls] = TableSpec(name=table, unique=unique, indexed=indexed, in_memory=in_memory)
        return cls

    return declare


def record_classes() -> dict[type[Record], TableSpec]:
    """Every declared record class with its table, once the modules of ``domain`` are imported."""
    return dict(_SPECS)


def table_of(cls: type[Record]) -> str:
    """The table of a record class."""
    return _SPECS[cls].name


class ChangeKind(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


@attrs.frozen
class Change:
    """``record`` is the state after the change, or the last one before a deletion."""

    revision: int
    kind: ChangeKind
    table: str
    record: Record
    before: Record | None = None
    size: int = attrs.field(default=0, eq=False, repr=False)
    """About how many bytes of memory the record takes."""

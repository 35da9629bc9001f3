"""What all records share: id, version, dates and a table; and how a change of one is described."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

import attrs

UNSAVED = 0
"""The id of a record that no store has taken yet."""
RETOLD = "retold"
"""Metadata of a field that the owner of a record tells anew by itself: where it cannot be read, its default will do."""


@attrs.frozen(kw_only=True)
class Record:
    """A value that lives in a table.

    ``id`` is given by the store at insertion and never used again for another record. ``version`` grows with
    every write and is what compare-and-set compares. Dates are aware UTC and set by the store.
    """

    id: int = UNSAVED
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None


@attrs.frozen(kw_only=True)
class TableSpec:
    """How a record class is kept: its table, and the sets of columns that are unique together."""

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
    """Declare on the class itself that it is kept in ``table``; ``store`` reads these declarations."""

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

"""A committed change, numbered by a growing revision: what watchers see and snapshots apply."""

from __future__ import annotations

from enum import StrEnum

import attrs

from .record import Record


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

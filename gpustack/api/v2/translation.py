"""What GPUStack 2.x writes and reads otherwise than we do, as tables; and a document taken through such a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from gpustack.domain.snapshot import Snapshot

Doc = dict[str, Any]

MOST_NAMED = 40
"""Names in one ``X-GPUStack-Ignored``: further ones are counted."""
_DEEPEST = 8
_SHOWABLE = re.compile(r"[A-Za-z0-9_.*=\[\]-]{1,80}")


@attrs.define
class Reading:
    """The reading of one request: what there is, and the names of what was not taken over."""

    snapshot: Snapshot = attrs.field(factory=Snapshot)
    ignored: list[str] = attrs.field(factory=list)
    unread: Doc = attrs.field(factory=dict)
    """Fields without a meaning in a request. They are not ignored where the answer shows the same values."""

    def ignore(self, name: str) -> None:
        """Note the name of a field, parameter or header that has no meaning here."""
        shown = name if _SHOWABLE.fullmatch(name) else "(a name that cannot be shown)"
        if shown not in self.ignored:
            self.ignored.append(shown)

    @property
    def header(self) -> str:
        """The value of ``X-GPUStack-Ignored``, empty where nothing was."""
        more = len(self.ignored) - MOST_NAMED
        return ", ".join(self.ignored[:MOST_NAMED]) + (f", and {more} more" if more > 0 else "")


Reads = Callable[[Any, Reading], Doc]
"""Makes of a value of theirs the fields of ours that mean the same. Raises ``GpustackError`` for what cannot be had."""
Shows = Callable[[Doc, Snapshot], Any]
"""Makes a field of theirs of our document, of which any field may be missing."""


@attrs.frozen
class Difference:
    """One field that they write or read otherwise. Without ``reads`` it is only shown, without ``shows`` only read."""

    field: str
    reads: Reads | None = None
    shows: Shows | None = None


@attrs.frozen(kw_only=True)
class Translation:
    """The differences of one kind of documents."""

    differences: tuple[Difference, ...] = ()
    owned: frozenset[str] = frozenset()
    """Fields that only a server writes: clients that send back what they have read do not mean them."""

    def read(self, given: Mapping[str, Any], known: Mapping[str, Any], reading: Reading) -> Doc:
        """The document of ours that ``given`` means; ``known`` has the fields that ours may have. Notes in ``reading``
        those that have no meaning, unless they say nothing (``null``, false, empty)."""
        rows = {row.field: row for row in self.differences}
        made: Doc = {}
        translated: Doc = {}
        for name, value in given.items():
            row = rows.get(name)
            if row is not None and row.reads is not None:
                translated.update(row.reads(value, reading))
            elif name in known:
                made[name] = value
            elif name not in self.owned | OWNED and not says_nothing(value):
                reading.unread[name] = value
        return {**made, **translated}

    def show(self, document: Doc, snapshot: Snapshot) -> Doc:
        """Our document with what theirs has more or otherwise."""
        theirs = {row.field: row.shows(document, snapshot) for row in self.differences if row.shows}
        return {**document, **theirs}

    @property
    def shown(self) -> frozenset[str]:
        """The names of fields that only their documents have."""
        return frozenset(row.field for row in self.differences if row.shows)


OWNED = frozenset(
    {"id", "created_at", "updated_at", "deleted_at", "state", "state_message", "owner_principal_id"}
)
"""``Translation.owned`` of every kind."""


def says_nothing(value: Any, deepest: int = _DEEPEST) -> bool:
    """Whether a value asks for nothing: forms send all their fields, most of them empty or switched off. What is nested
    deeper than any form is taken to ask for something."""
    if isinstance(value, dict):
        is_off = value.get("enabled") is False
        return deepest > 0 and (is_off or all(says_nothing(one, deepest - 1) for one in value.values()))
    return not value


def renamed(theirs: str, ours: str) -> Difference:
    """A field that is called otherwise."""
    return Difference(
        theirs, lambda value, reading: {ours: value}, lambda document, snapshot: document.get(ours)
    )


def shown(field: str, value: Any) -> Difference:
    """A field that always has the same value."""
    return Difference(field, shows=lambda document, snapshot: value)

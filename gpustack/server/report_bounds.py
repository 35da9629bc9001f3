"""How much of what a worker says is kept: a machine that joined must not fill the server's memory and database."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

T = TypeVar("T")

LONGEST = 4096
"""Characters of a text."""
MOST = 1024
"""Entries of a list: file systems, devices, the files of one source."""
LONGEST_NAME = 256
"""Characters of a label's name."""
MOST_LABELS = 64
MOST_FILES = 4096
"""Records of model files on one worker."""
MOST_WORKERS = 4096


def bounded(value: T) -> T:
    """The same with long texts and lists cut, whatever it is made of; the value itself where nothing is too long."""
    found: Any = _bounded(value)
    return found  # type: ignore[no-any-return]


def merged_labels(first: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Labels that are there, and of those that are brought as many as there is room for.

    So a worker that brings others with each report comes to no more than one that brings them at once.
    """
    room = max(MOST_LABELS - len(first), 0)
    new = [(name[:LONGEST_NAME], text) for name, text in more.items() if name[:LONGEST_NAME] not in first]
    return {**bounded(dict(new[:room])), **first}


def _bounded(value: Any) -> Any:
    match value:
        case enum.Enum():
            return value
        case str():
            return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
        case tuple():
            kept = tuple(map(_bounded, value[:MOST]))
            return value if kept == value else kept
        case Mapping():
            few = list(value.items())[:MOST_LABELS]
            return {
                name[:LONGEST_NAME] if isinstance(name, str) else name: _bounded(one) for name, one in few
            }
    if not attrs.has(type(value)):
        return value
    changes = {}
    for field in attrs.fields(type(value)):
        before = getattr(value, field.name)
        after = _bounded(before)
        if after != before:
            changes[field.name] = after
    return attrs.evolve(value, **changes) if changes else value

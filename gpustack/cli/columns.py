"""The columns of a table: which are shown, how wide they are, and how what does not fit is shortened."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import attrs

GAP = "  "
_NARROW = 12
"""Columns are not shortened below this width, nor below their head."""


@attrs.frozen
class Column:
    """The head of a column. ``wide``: it is shown with ``-o wide`` only. ``ticks``: it changes by the time alone, which
    is no news. ``whole``: what stands in it is never shortened."""

    name: str
    wide: bool = False
    ticks: bool = False
    whole: bool = False


def columns_of(heads: Sequence[str | Column]) -> list[Column]:
    """Heads that are mere names as columns."""
    return [head if isinstance(head, Column) else Column(head) for head in heads]


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes: letters of East Asia two, marks over other letters none."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def shortened(text: str, width: int, mark: str = "…") -> str:
    """``text`` in so many columns, its middle left out: names differ at their ends."""
    if width_of(text) <= width:
        return text
    left = max(width - width_of(mark), 0)
    head = _upto(text, (left + 1) // 2)
    return f"{head}{mark}{_upto(text[::-1], left - width_of(head))[::-1]}"


def _upto(text: str, width: int) -> str:
    """The beginning of a text that takes so many columns at most."""
    taken = 0
    for at, letter in enumerate(text):
        taken += _width(letter)
        if taken > width:
            return text[:at]
    return text


def fitted(widths: Sequence[int], columns: Sequence[Column], room: int) -> list[int]:
    """Widths that fit into ``room`` with the gaps between them: the widest columns give first. Where all of them are
    narrow they stay too wide."""
    least = [
        width if column.whole else max(_NARROW, width_of(column.name))
        for column, width in zip(columns, widths, strict=True)
    ]
    found = list(widths)
    over = sum(found) + len(GAP) * (len(found) - 1) - room
    while over > 0:
        spare = [at for at, width in enumerate(found) if width > least[at]]
        if not spare:
            break
        found[max(spare, key=lambda at: found[at])] -= 1
        over -= 1
    return found

"""Tables as CSV that spreadsheets open without running anything in it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

CSV = "text/csv; charset=utf-8"


def csv_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """The rows as lines; ``None`` is an empty cell, a day or instant stands in ISO form."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


_FORMULA = re.compile(r"(^|[;\t\r\n])(?=\s{0,32}['\"]?[=+@\uff1d\uff0b\uff0d\uff20-])")
"""Where a spreadsheet sees a formula begin, also as East Asian keyboards write it: in the whole cell, or behind what
parts cells and rows for those that do not take a comma for that."""


def _cell(value: Any) -> Any:
    """A spreadsheet would run a text that begins so: an apostrophe keeps it a text."""
    if isinstance(value, str):
        return _FORMULA.sub(r"\1'", value)
    if isinstance(value, date):
        return value.isoformat()
    return "" if value is None else value


def attached(name: str) -> tuple[str, str]:
    """The header with which a browser saves the answer under that name."""
    return "Content-Disposition", f'attachment; filename="{name}"'

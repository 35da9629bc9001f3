"""Tables as CSV that spreadsheets open without running anything in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

CSV = "text/csv; charset=utf-8"


def csv_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """The rows as lines; ``None`` is an empty cell, a day or instant stands in ISO form."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """A spreadsheet would take a text that begins so for a formula: an apostrophe keeps it a text."""
    if isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    if isinstance(value, date):
        return value.isoformat()
    return "" if value is None else value


def attached(name: str) -> tuple[str, str]:
    """The header with which a browser saves the answer under that name."""
    return "Content-Disposition", f'attachment; filename="{name}"'

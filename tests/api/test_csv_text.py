"""A table opens in a spreadsheet, and nothing in it runs."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from gpustack.api.csv_text import csv_lines


@pytest.mark.attack("forged-line")
@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "+1", "-1", "@A1", "\t=1", " =1", "\r\n=1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff201"),
        *("a;=1+1", "a; =1", "a\t=1", "a\n=1", 'a;"=1'),
    ],
)
def test_no_text_begins_a_formula_whatever_a_spreadsheet_takes_for_the_end_of_a_cell(text: str) -> None:
    ((cell, number),) = csv.reader(io.StringIO(csv_lines([[text, -5]]).decode(), newline=""))
    assert number == "-5"
    for end in (";", "\t", "\n"):
        for part in cell.split(end):
            assert (
                part.strip().strip('"')[:1] not in tuple("=+-@\uff1d\uff0b\uff0d\uff20") or not part.strip()
            ), part


@pytest.mark.parametrize("value", ["ada", "a-b", "1 = 1", "x;y", "模型", "2026-01-02T03:04:05+00:00"])
def test_other_texts_stay(value: Any) -> None:
    assert csv_lines([[value]]).decode().strip() == value

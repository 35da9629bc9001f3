"""Tables in aligned columns."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from gpustack.cli.terminal import Terminal

_GAP = "  "


@attrs.frozen
class Cell:
    """A text and its colour."""

    text: str
    style: str | None = None


@attrs.frozen
class Row:
    """The cells of a row, and a remark printed under it."""

    cells: Sequence[Cell | str]
    remark: str = ""


def draw(heads: Sequence[str], rows: Sequence[Row], terminal: Terminal) -> str:
    """The table as text. Columns are as wide as what they hold; remarks are never cut."""
    grid = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row.cells] for row in rows]
    widths = [
        max(len(head), *(len(row[i].text) for row in grid)) if grid else len(head)
        for i, head in enumerate(heads)
    ]
    lines = [_line([Cell(head, "bold") for head in heads], widths, terminal)]
    for row, cells in zip(rows, grid, strict=True):
        lines.append(_line(cells, widths, terminal))
        if row.remark:
            lines.append(terminal.style(f"  {row.remark}", "dim"))
    return "\n".join(lines)


def _line(cells: Sequence[Cell], widths: Sequence[int], terminal: Terminal) -> str:
    last = len(cells) - 1
    parts = []
    for i, cell in enumerate(cells):
        pad = " " * (widths[i] - len(cell.text)) if i < last else ""
        parts.append(terminal.style(cell.text, cell.style) + pad)
    return _GAP.join(parts)

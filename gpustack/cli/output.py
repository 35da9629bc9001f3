"""How commands write results: a table, JSON, YAML or names alone (``-o`` and ``-q``), always to stdout."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from gpustack.cli.columns import GAP, Column, columns_of, fitted, shortened, width_of
from gpustack.cli.command_line import CommandLine
from gpustack.cli.session import Doc
from gpustack.cli.terminal import STEERING, Terminal, harmless, stderr, stdout

FORMS = ("table", "json", "yaml")
LIST_FORMS = ("table", "wide", "json", "yaml")
"""Of lists: ``wide`` is the table with all columns, nothing shortened."""
_NARROWEST = 20


@attrs.frozen
class Cell:
    """A text and its colour (a name of ``Terminal.style``)."""

    text: str
    style: str | None = None


@attrs.frozen
class Row:
    """The cells of a row, and a remark printed under it."""

    cells: Sequence[Cell | str]
    remark: str = ""


def show_list(
    command_line: CommandLine,
    documents: list[Doc],
    heads: Sequence[str | Column],
    row: Callable[[Doc], Row],
    env: Mapping[str, str],
    *,
    name: str = "name",
    empty: str = "",
) -> None:
    """Print a row for each document, or the documents in another form; ``empty`` goes to stderr if there are none.

    ``name`` is the field that ``-q`` prints. Raises UsageError for a form that there is not.
    """
    if not documents and empty:
        stderr(env).say(empty)

    def table() -> str:
        rows = list(map(row, documents))
        return draw_table(heads, rows, stdout(env), wide=is_wide(command_line)) if documents else ""

    show(command_line, documents, table, name=name, forms=LIST_FORMS)


def show(
    command_line: CommandLine,
    documents: list[Doc] | Doc,
    table: Callable[[], str],
    *,
    name: str = "name",
    forms: Sequence[str] = FORMS,
) -> None:
    """Print the documents in the form that the command line asks for; ``table`` is called if that is wanted."""
    form = command_line.choice("--output", *forms)
    if command_line.found.get("--quiet"):
        items = documents if isinstance(documents, list) else [documents]
        text = for_stdout("\n".join(str(item.get(name)) for item in items))
    elif form == "json":
        text = as_json(documents)
    elif form == "yaml":
        text = as_yaml(documents)
    else:
        # what a worker, an engine or a file's header says stands in it
        text = harmless(table())
    if text:
        print(text)


def for_stdout(text: str) -> str:
    """What others said, as it may be printed: programs get it as it is, a terminal without what would steer it."""
    return harmless(text) if sys.stdout.isatty() else text


def is_table(command_line: CommandLine) -> bool:
    """Whether a list is shown to people, as a table. Raises UsageError for a form that there is not."""
    form = command_line.choice("--output", *LIST_FORMS)
    return form in ("table", "wide") and not command_line.found.get("--quiet")


def is_wide(command_line: CommandLine) -> bool:
    """Whether all columns are asked for."""
    return command_line.text("--output") == "wide"


def as_json(document: Any, *, indent: int | None = 2) -> str:
    """``indent``: ``None`` is all on one line."""
    import json

    text = json.dumps(document, indent=indent, ensure_ascii=False)
    # JSON demands it of fewer characters than steer terminals.
    return STEERING.sub(lambda found: json.dumps(found[0])[1:-1], text)


def as_yaml(document: Any) -> str:
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)).rstrip("\n")


def write_file(command_line: CommandLine, place: str, text: str, *, mode: int = 0o600) -> None:
    """Replace the file as a whole, or that to which a link leads. What is no file, such as /dev/null or a pipe, is
    written to: it must not be replaced. Raises UsageError."""
    from pathlib import Path

    from gpustack import durable_file

    path = Path(place)
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            durable_file.write(path.resolve(), text, mode=mode)
    except OSError as error:
        raise command_line.error(f"{place}: {error.strerror or error}") from error


def draw_table(
    heads: Sequence[str | Column], rows: Sequence[Row], terminal: Terminal, *, wide: bool = False
) -> str:
    """A table as text. Columns are as wide as what they hold; on a terminal that is too narrow for them what stands in
    the widest is shortened, unless it is to be ``wide``. Remarks are never cut, but on a terminal they are broken
    between words."""
    columns = columns_of(heads)
    shown = [at for at, column in enumerate(columns) if wide or not column.wide]
    names = [columns[at].name for at in shown]
    grid = [[_cell(row.cells[at]) for at in shown] for row in rows]
    widths = [max([width_of(name), *(width_of(row[i].text) for row in grid)]) for i, name in enumerate(names)]
    if terminal.live and not wide:
        widths = fitted(widths, [columns[at] for at in shown], terminal.width)
    lines = [_line([Cell(name, "bold") for name in names], widths, terminal)]
    for row, cells in zip(rows, grid, strict=True):
        lines.append(_line(cells, widths, terminal))
        if row.remark:
            lines += [terminal.style(f"  {line}", "dim") for line in _remark(row.remark, terminal)]
    return "\n".join(lines)


def _cell(cell: Cell | str) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def _remark(text: str, terminal: Terminal) -> list[str]:
    if not terminal.live:
        return [text]
    width = max(terminal.width - 3, _NARROWEST)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _line(cells: Sequence[Cell], widths: Sequence[int], terminal: Terminal) -> str:
    last = len(cells) - 1
    parts = []
    for i, cell in enumerate(cells):
        text = shortened(cell.text, widths[i], "…" if terminal.utf8 else "~")
        pad = " " * (widths[i] - width_of(text)) if i < last else ""
        parts.append(terminal.style(text, cell.style) + pad)
    return GAP.join(parts)

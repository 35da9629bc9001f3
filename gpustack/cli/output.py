"""How commands write results: a table, JSON, YAML or names alone (``-o`` and ``-q``), always to stdout."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from gpustack.cli.command_line import CommandLine
from gpustack.cli.session import Doc
from gpustack.cli.terminal import Terminal, harmless, stderr, stdout

FORMS = ("table", "json", "yaml")
_GAP = "  "
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
    heads: Sequence[str],
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
        return draw_table(heads, list(map(row, documents)), stdout(env)) if documents else ""

    show(command_line, documents, table, name=name)


def show(
    command_line: CommandLine,
    documents: list[Doc] | Doc,
    table: Callable[[], str],
    *,
    name: str = "name",
) -> None:
    """Print the documents in the form that the command line asks for; ``table`` is called if that is wanted."""
    form = command_line.choice("--output", *FORMS)
    if command_line.found.get("--quiet"):
        items = documents if isinstance(documents, list) else [documents]
        text = "\n".join(str(item.get(name)) for item in items)
    elif form == "json":
        text = as_json(documents)
    elif form == "yaml":
        text = as_yaml(documents)
    else:
        # what a worker, an engine or a file's header says stands in it
        text = harmless(table())
    if text:
        print(text)


def is_table(command_line: CommandLine) -> bool:
    """Whether results are shown to people, as a table. Raises UsageError for a form that there is not."""
    return command_line.choice("--output", *FORMS) == "table" and not command_line.found.get("--quiet")


def as_json(document: Any) -> str:
    import json

    return json.dumps(document, indent=2, ensure_ascii=False)


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


def draw_table(heads: Sequence[str], rows: Sequence[Row], terminal: Terminal) -> str:
    """A table as text. Columns are as wide as what they hold; remarks are never cut, but on a terminal they are broken
    between words."""
    grid = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row.cells] for row in rows]
    widths = [
        max(len(head), *(len(row[i].text) for row in grid)) if grid else len(head)
        for i, head in enumerate(heads)
    ]
    lines = [_line([Cell(head, "bold") for head in heads], widths, terminal)]
    for row, cells in zip(rows, grid, strict=True):
        lines.append(_line(cells, widths, terminal))
        if row.remark:
            lines += [terminal.style(f"  {line}", "dim") for line in _remark(row.remark, terminal)]
    return "\n".join(lines)


def _remark(text: str, terminal: Terminal) -> list[str]:
    if not terminal.live:
        return [text]
    width = max(terminal.width - 3, _NARROWEST)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _line(cells: Sequence[Cell], widths: Sequence[int], terminal: Terminal) -> str:
    last = len(cells) - 1
    parts = []
    for i, cell in enumerate(cells):
        pad = " " * (widths[i] - len(cell.text)) if i < last else ""
        parts.append(terminal.style(cell.text, cell.style) + pad)
    return _GAP.join(parts)

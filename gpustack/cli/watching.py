"""Lists that are shown while they change: drawn again on a terminal, a row for each change everywhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import trio

from gpustack.cli.columns import GAP, Column, columns_of, width_of
from gpustack.cli.command_line import CommandLine
from gpustack.cli.output import LIST_FORMS, Cell, Row, as_json, as_yaml, draw_table, is_wide
from gpustack.cli.screen import Screen
from gpustack.cli.session import Doc, ServerSession
from gpustack.cli.terminal import Terminal, harmless, stderr, stdout
from gpustack.errors import Unavailable
from gpustack.remote.admin_client import CREATED, DELETED, SYNCED, UPDATED, AdminClient

_LOOK_EVERY = 2.0
_SPARED = 5.0
"""A look is followed by a pause of so many times what it took at least: a large cluster is asked less often."""
_AGAIN = 1.0

Tell = Callable[[Sequence[Doc]], None]
"""Takes the whole list, as it is now; of events those that are new."""
Feed = Callable[[AdminClient, Tell], Awaitable[None]]
"""Tells at first and after changes, without end. Raises Unavailable while the server is away."""


def streamed(path: str, **filters: str | int) -> Feed:
    """The list at ``path`` by the server's stream of changes."""

    async def feed(client: AdminClient, tell: Tell) -> None:
        present: dict[Any, Doc] = {}
        async with client.watch(path, **filters) as events:
            synced = False
            async for event in events:
                if event.kind in (CREATED, UPDATED):
                    present[event.item.get("id")] = event.item
                elif event.kind == DELETED:
                    present.pop(event.item.get("id"), None)
                synced = synced or event.kind == SYNCED
                if synced:
                    tell(list(present.values()))

    return feed


def looked_at(look: Callable[[AdminClient], Awaitable[list[Doc]]], every: float = _LOOK_EVERY) -> Feed:
    """What ``look`` finds, again and again: of lists with figures that are no changes of a record, such as loads."""

    async def feed(client: AdminClient, tell: Tell) -> None:
        while True:
            begun = trio.current_time()
            tell(await look(client))
            took = trio.current_time() - begun
            await trio.sleep(max(every, _SPARED * took))

    return feed


@attrs.define(eq=False, kw_only=True)
class ListView:
    """How the documents of a list become rows. ``name`` is the field that names one."""

    heads: Sequence[str | Column]
    row: Callable[[Doc], Row]
    name: str = "name"
    order: Callable[[Doc], Any] | None = None
    """Of rows; as the server has them where there is none."""


def watch_list(
    command_line: CommandLine,
    session: ServerSession,
    feed: Feed,
    view: ListView,
    env: Mapping[str, str],
) -> int:
    """Show a list until it is left; returns the exit code. Ctrl-C raises KeyboardInterrupt.

    A server that goes away is waited for. Raises UsageError for a form that there is not, and what the first look does.
    """
    form = command_line.choice("--output", *LIST_FORMS)
    if command_line.found.get("--quiet"):
        raise command_line.error("--watch and --quiet exclude each other")
    terminal = stdout(env)
    if form in ("table", "wide") and terminal.live:
        wide = is_wide(command_line)

        def frame(documents: Sequence[Doc]) -> Sequence[str]:
            rows = [view.row(one) for one in ordered(documents, view)]
            return draw_table(view.heads, rows, terminal, wide=wide).splitlines()

        show_live(session, feed, terminal, frame)
    else:
        told = Written(view, terminal, form)
        aside = stderr(env)
        session.run(lambda client: follow(client, feed, told.take, partial(say_away, aside)))
    return 0


def show_live(
    session: ServerSession, feed: Feed, terminal: Terminal, frame: Callable[[Sequence[Doc]], Sequence[str]]
) -> None:
    """Fill the terminal with the lines that ``frame`` makes of the list, until it is left. Raises what the first look
    does; Ctrl-C raises KeyboardInterrupt."""
    known: list[Doc] = []
    screen = Screen(terminal, lambda: frame(known))

    def take(documents: Sequence[Doc]) -> None:
        known[:] = documents
        screen.changed()

    def miss(why: str) -> None:
        screen.fault = why
        screen.changed()

    session.run(lambda client: screen.run(lambda: follow(client, feed, take, miss)))


def say_away(aside: Terminal, why: str) -> None:
    """Say why the server is away; that it is back is seen."""
    if why:
        aside.say(why)


async def follow(client: AdminClient, feed: Feed, tell: Tell, miss: Callable[[str], None]) -> None:
    """Follow a feed without end, over times in which the server is away: ``miss`` is told once why, and with an empty
    text that it is back. Raises what happens before anything has been told."""
    known = False
    away = ""

    def heard(documents: Sequence[Doc]) -> None:
        nonlocal known, away
        known = True
        if away:
            away = ""
            miss("")
        tell(documents)

    while True:
        try:
            await feed(client, heard)
        except Unavailable as error:
            if not known:
                raise
            if not away:
                away = f"{error}; trying again"
                miss(away)
        await trio.sleep(_AGAIN)


def ordered(documents: Sequence[Doc], view: ListView) -> list[Doc]:
    """The documents in the order of the rows."""
    return list(documents) if view.order is None else sorted(documents, key=view.order)


class Written:
    """A list in a pipe or a file: its rows, then a row for each change; of JSON a line for each, of YAML a document."""

    def __init__(self, view: ListView, terminal: Terminal, form: str) -> None:
        self.view, self.terminal, self.form = view, terminal, form
        columns = columns_of(view.heads)
        self._shown = [at for at, one in enumerate(columns) if form == "wide" or not one.wide]
        self._lasting = [at for at in self._shown if not columns[at].ticks]
        self._heads = [columns[at].name for at in self._shown]
        self._widths: list[int] = []
        self._known: dict[Any, object] = {}
        """By id what was printed last: the document, or of a row what is no mere passing of time."""
        self._names: dict[Any, str] = {}

    def take(self, documents: Sequence[Doc]) -> None:
        """Print what is new since the last call."""
        present = {one.get("id"): one for one in ordered(documents, self.view)}
        gone = [key for key in self._known if key not in present]
        if self.form in ("json", "yaml"):
            self._documents(present, gone)
        else:
            self._rows(present, gone)
        for key in gone:
            del self._known[key], self._names[key]
        self._names.update((key, str(one.get(self.view.name))) for key, one in present.items())
        self.terminal.stream.flush()

    def _documents(self, present: Mapping[Any, Doc], gone: Sequence[Any]) -> None:
        changed = [(key, one) for key, one in present.items() if self._known.get(key) != one]
        self._known.update(changed)
        events = [("changed", one) for _, one in changed]
        events += [("gone", {"id": key, self.view.name: self._names[key]}) for key in gone]
        for event, item in events:
            document = {"event": event, "item": item}
            self._print(
                f"---\n{as_yaml(document)}" if self.form == "yaml" else as_json(document, indent=None)
            )

    def _rows(self, present: Mapping[Any, Doc], gone: Sequence[Any]) -> None:
        rows = []
        for key, one in present.items():
            row = self.view.row(one)
            lasting = ([_text(row.cells[at]) for at in self._lasting], row.remark)
            if self._known.get(key) != lasting:
                self._known[key] = lasting
                rows.append(([_text(row.cells[at]) for at in self._shown], row.remark))
        lines = [cells for cells, _ in rows]
        if rows and not self._widths:
            self._widths = [width_of(head) for head in self._heads]
            rows.insert(0, (self._heads, ""))
        for cells in lines:
            self._widths = [max(pair) for pair in zip(self._widths, map(width_of, cells), strict=True)]
        for cells, remark in rows:
            padded = (
                f"{text}{' ' * (width - width_of(text))}"
                for text, width in zip(cells, self._widths, strict=True)
            )
            self._print(GAP.join(padded).rstrip())
            if remark:
                self._print(f"  {remark}")
        for key in gone:
            self._print(f"{self._names[key]} is gone")

    def _print(self, line: str) -> None:
        """``line`` is washed where people read it; JSON and YAML write out such letters themselves."""
        self.terminal.stream.write(f"{line if self.form in ('json', 'yaml') else harmless(line)}\n")


def _text(cell: Cell | str) -> str:
    return cell.text if isinstance(cell, Cell) else cell

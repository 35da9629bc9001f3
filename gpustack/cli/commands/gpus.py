"""List the GPUs of all workers: what is claimed and used of each, and by whom.

Usage:
  gpustack gpus [options]
  gpustack gpus ls [options]
  gpustack gpus top [options]

top shows them live, and after q once more; in a pipe it is one table. Free is what nobody has claimed, or uses without
a claim. The names are those that gpustack run --gpu takes.

Options:
  --worker=WORKER    Only those of this worker.
  --sort=BY          name, load, memory or temperature (default: name): the busiest, fullest or hottest first.
  -w, --watch        Go on, and show what changes.
  -o, --output=FORM  table, wide, json or yaml (default: table; wide has all columns).
  -q, --quiet        Names only.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from gpustack.cli import output, phrase
from gpustack.cli.columns import Column
from gpustack.cli.command_line import read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, ServerSession, open_session
from gpustack.cli.terminal import Terminal, stdout
from gpustack.text import listed

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = (
    "NAME",
    "KIND",
    "MEMORY",
    "CLAIMED",
    "USED",
    "FREE",
    "LOAD",
    "TEMP",
    Column("TYPE", wide=True),
    Column("DRIVER", wide=True),
    Column("INSTANCES", wide=True),
)
_TOP_HEADS = ("NAME", "KIND", "MEMORY", "USED", "LOAD", "TEMP", "INSTANCES")
_EMPTY = "No worker has a GPU: models run on processors. gpustack doctor looks for what is in the way of one."
_BAR = 12
_SHOWN = 2


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each GPU, once or for as long as it is looked at."""
    command_line = read(__doc__, "gpus", argv)
    order = _order(command_line.choice("--sort", "name", "load", "memory", "temperature"))
    is_top = command_line.flag("top")
    form = command_line.choice("--output", *output.LIST_FORMS)
    session = open_session(env)
    worker = command_line.text("--worker")
    if is_top and form == "table" and not command_line.flag("--quiet") and stdout(env).live:
        return _top(session, worker, order, stdout(env))
    if command_line.flag("--watch"):
        from gpustack.cli.watching import ListView, looked_at, watch_list

        view = ListView(heads=_HEADS, row=_row, name="id", order=order)
        return watch_list(command_line, session, looked_at(lambda client: _gpus(client, worker)), view, env)
    gpus = sorted(session.run(lambda client: _gpus(client, worker)), key=order)
    heads: Sequence[str | Column] = _TOP_HEADS if is_top else _HEADS
    row = partial(_top_row, terminal=stdout(env)) if is_top else _row
    output.show_list(command_line, gpus, heads, row, env, name="id", empty=_EMPTY)
    return 0


async def _gpus(client: AdminClient, worker: str | None) -> list[Doc]:
    from gpustack.cli.gpu_load import gpus_of
    from gpustack.cli.lookup import workers_named

    gpus = await gpus_of(client)
    if worker is None:
        return gpus
    [named] = await workers_named(client, [worker])
    return [gpu for gpu in gpus if gpu.get("worker_id") == named["id"]]


def _order(by: str) -> Callable[[Doc], Any]:
    from gpustack.cli.gpu_load import place_of, utilisation

    def memory(gpu: Doc) -> float:
        found = gpu.get("memory") or {}
        held = max(found.get("used") or 0, found.get("allocated") or 0)
        return held / (found.get("total") or 1)

    figures: Mapping[str, Callable[[Doc], float]] = {
        "load": lambda gpu: utilisation(gpu) or 0.0,
        "memory": memory,
        "temperature": lambda gpu: gpu.get("temperature") or 0.0,
    }
    figure = figures.get(by)
    return place_of if figure is None else lambda gpu: (-figure(gpu), place_of(gpu))


def _row(gpu: Doc) -> Row:
    from gpustack.cli.gpu_load import free, percent, temperature, utilisation

    memory = gpu.get("memory") or {}
    left = free(memory)
    foreign = memory.get("foreign") or 0
    told = [
        phrase.one_line(gpu.get("fault")),
        f"{phrase.size(foreign)} is used by other programs" if foreign else "",
    ]
    return Row(
        [
            str(gpu["id"]),
            phrase.chip(gpu.get("name")),
            phrase.size(memory.get("total")),
            phrase.size(memory.get("allocated")),
            phrase.size(memory.get("used")),
            Cell(phrase.size(left), "dim" if left == 0 else None),
            percent(utilisation(gpu)),
            Cell(*temperature(gpu)),
            str(gpu.get("type") or "-"),
            str(gpu.get("driver_version") or "-"),
            ", ".join(gpu.get("instances") or ()) or "-",
        ],
        remark="; ".join(filter(None, told)),
    )


def _top_row(gpu: Doc, terminal: Terminal) -> Row:
    from gpustack.cli.gpu_load import bar, percent, temperature, utilisation

    memory = gpu.get("memory") or {}
    names = gpu.get("instances") or ()
    return Row(
        [
            Cell(str(gpu["id"]), "red" if gpu.get("fault") else None),
            phrase.chip(gpu.get("name")),
            bar(memory, _BAR, utf8=terminal.utf8),
            phrase.part(memory.get("used"), memory.get("total")),
            percent(utilisation(gpu)),
            Cell(*temperature(gpu)),
            listed(names, _SHOWN) or "-",
        ],
        remark=phrase.one_line(gpu.get("fault")),
    )


def _top(session: ServerSession, worker: str | None, order: Callable[[Doc], Any], terminal: Terminal) -> int:
    """Show them live."""
    from gpustack.cli.gpu_load import legend, sums
    from gpustack.cli.watching import looked_at, show_live

    def frame(gpus: Sequence[Doc]) -> Sequence[str]:
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        rows = [_top_row(gpu, terminal) for gpu in sorted(gpus, key=order)]
        table = output.draw_table(_TOP_HEADS, rows, terminal).splitlines() if rows else []
        marks = [terminal.style(f"{legend(utf8=terminal.utf8)}  {clock}", "dim")] if rows else []
        return [sums(gpus) if gpus else _EMPTY, *marks, *table]

    show_live(session, looked_at(lambda client: _gpus(client, worker)), terminal, frame)
    return 0

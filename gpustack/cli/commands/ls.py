"""List the models that are deployed.

Usage:
  gpustack ls [options]

Options:
  -w, --watch        Go on, and show what changes.
  -o, --output=FORM  table, wide, json or yaml (default: table; wide has all columns).
  -q, --quiet        Names only.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from gpustack.cli import output, phrase
from gpustack.cli.columns import Column
from gpustack.cli.command_line import read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, open_session

_HEADS = (
    "NAME",
    "SOURCE",
    "READY",
    Column("PRIORITY", wide=True),
    "BACKEND",
    "CATEGORIES",
    Column("AGE", ticks=True),
)


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each model."""
    command_line = read(__doc__, "ls", argv)
    from gpustack.cli.lookup import MODELS
    from gpustack.cli.watching import ListView, streamed, watch_list

    session = open_session(env)
    if command_line.flag("--watch"):
        view = ListView(heads=_HEADS, row=lambda model: _row(model, datetime.now(UTC)))
        return watch_list(command_line, session, streamed(MODELS), view, env)
    models = session.run(lambda client: client.all(MODELS))
    row = partial(_row, now=datetime.now(UTC))
    empty = "No model is deployed; gpustack run MODEL deploys one."
    output.show_list(command_line, models, _HEADS, row, env, empty=empty)
    return 0


def _row(model: Doc, now: datetime) -> Row:
    ready, wanted = model.get("ready_replicas") or 0, model.get("replicas") or 0
    style = "dim" if not wanted else "green" if ready >= wanted else "yellow"
    return Row(
        [
            str(model["name"]),
            phrase.source(model),
            Cell(f"{ready}/{wanted}", style),
            str(model.get("priority") or 0),
            str(model.get("backend") or "auto"),
            ",".join(model.get("categories") or ()) or "-",
            phrase.age(model.get("created_at"), now),
        ]
    )

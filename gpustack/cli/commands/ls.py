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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gpustack.cli import output, phrase
from gpustack.cli.columns import Column
from gpustack.cli.command_line import read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, open_session

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = (
    "NAME",
    "SOURCE",
    "READY",
    Column("TOKENS/S", wide=True, ticks=True),
    Column("LAST USE", wide=True, ticks=True),
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
    models, rates = session.run(partial(_look, rates=output.is_wide(command_line)))
    row = partial(_row, now=datetime.now(UTC), rates=rates)
    empty = "No model is deployed; gpustack run MODEL deploys one."
    output.show_list(command_line, models, _HEADS, row, env, empty=empty)
    return 0


async def _look(client: AdminClient, *, rates: bool) -> tuple[list[Doc], Mapping[Any, Doc]]:
    """All models, and how fast each is."""
    from gpustack.cli.lookup import MODELS, rates_of

    return await client.all(MODELS), await rates_of(client) if rates else {}


def _row(model: Doc, now: datetime, rates: Mapping[Any, Doc] = MappingProxyType({})) -> Row:
    rate = rates.get(model.get("id"), {})
    ready, wanted = model.get("ready_replicas") or 0, model.get("replicas") or 0
    style = "dim" if not wanted else "green" if ready >= wanted else "yellow"
    return Row(
        [
            str(model["name"]),
            phrase.source(model),
            Cell(f"{ready}/{wanted}", style),
            phrase.rate(rate.get("tokens_per_second")),
            phrase.age(rate.get("last_used_at"), now),
            str(model.get("priority") or 0),
            str(model.get("backend") or "auto"),
            ",".join(model.get("categories") or ()) or "-",
            phrase.age(model.get("created_at"), now),
        ]
    )

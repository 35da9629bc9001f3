"""List the instances of models: where each runs, or why it does not.

Usage:
  gpustack ps [options] [MODEL]

Options:
  -o, --output=FORM  table, json or yaml (default: table).
  -q, --quiet        Names only.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.command_line import read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, open_session

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("NAME", "MODEL", "STATE", "WORKER", "GPUS", "PORT", "RESTARTS", "AGE")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each instance, and under those that do not run why."""
    command_line = read(__doc__, "ps", argv)
    model = command_line.text("MODEL")
    instances = open_session(env).run(lambda client: _instances(client, model))
    row = partial(_row, now=datetime.now(UTC))
    empty = f"There are no instances{f' of {model}' if model else ''}; gpustack run MODEL deploys a model."
    output.show_list(command_line, instances, _HEADS, row, env, empty=empty)
    return 0


async def _instances(client: AdminClient, model: str | None) -> list[Doc]:
    from gpustack.cli.lookup import INSTANCES, model_named

    if model is None:
        return await client.all(INSTANCES)
    return await client.all(INSTANCES, model_id=(await model_named(client, model))["id"])


def _row(instance: Doc, now: datetime) -> Row:
    ending = bool(instance.get("deleted_at"))
    state = "ending" if ending else str(instance.get("state"))
    placed = instance.get("worker_id") is not None
    indexes = ",".join(str(index) for index in instance.get("gpu_indexes") or ())
    return Row(
        [
            str(instance["name"]),
            str(instance.get("model_name") or "-"),
            Cell(phrase.with_progress(state, instance), "dim" if ending else phrase.state_style(state)),
            str(instance.get("worker_name") or "-"),
            (indexes or "CPU") if placed else "-",
            str(instance.get("port") or "-"),
            str(instance.get("restart_count") or 0),
            phrase.age(instance.get("created_at"), now),
        ],
        remark="" if state == "running" else phrase.reason(instance, now),
    )

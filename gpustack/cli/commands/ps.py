"""List the instances of models: where each runs, or why it does not.

Usage:
  gpustack ps [options] [MODEL]

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
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.columns import Column
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, ServerSession, open_session

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = (
    "NAME",
    Column("MODEL", wide=True),
    "STATE",
    "WORKER",
    "GPUS",
    "MEMORY",
    Column("PORT", wide=True),
    "RESTARTS",
    Column("AGE", ticks=True),
)


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each instance, and under those that do not run why; memory is what it claims."""
    command_line = read(__doc__, "ps", argv)
    model = command_line.text("MODEL")
    session = open_session(env)
    if command_line.flag("--watch"):
        return _watch(command_line, session, model, env)
    instances = session.run(lambda client: _instances(client, model))
    row = partial(_row, now=datetime.now(UTC))
    empty = f"There are no instances{f' of {model}' if model else ''}; gpustack run MODEL deploys a model."
    output.show_list(command_line, instances, _HEADS, row, env, empty=empty)
    return 0


def _watch(
    command_line: CommandLine, session: ServerSession, model: str | None, env: Mapping[str, str]
) -> int:
    from gpustack.cli.lookup import INSTANCES, model_named
    from gpustack.cli.watching import ListView, streamed, watch_list

    of = {} if model is None else {"model_id": session.run(lambda client: model_named(client, model))["id"]}
    view = ListView(heads=_HEADS, row=lambda instance: _row(instance, datetime.now(UTC)))
    return watch_list(command_line, session, streamed(INSTANCES, **of), view, env)


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
            _claimed(instance.get("computed_resource_claim") or {}),
            str(instance.get("port") or "-"),
            str(instance.get("restart_count") or 0),
            phrase.age(instance.get("created_at"), now),
        ],
        remark="" if state == "running" else phrase.reason(instance, now),
    )


def _claimed(claim: Doc) -> str:
    """Of GPUs together, where it has some; else of the machine's memory."""
    vram = sum((claim.get("vram") or {}).values())
    return phrase.size(vram or claim.get("ram"))

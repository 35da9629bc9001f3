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
from typing import TYPE_CHECKING, Any

from gpustack.cli import output, phrase
from gpustack.cli.session import open_session
from gpustack.cli.table import Cell, Row, draw
from gpustack.cli.terminal import Terminal, stderr, stdout
from gpustack.cli.usage import read

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("NAME", "MODEL", "STATE", "WORKER", "GPUS", "PORT", "RESTARTS", "AGE")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each instance, and under those that do not run why."""
    words = read(__doc__, "ps", argv)
    model = words.text("MODEL")
    instances = open_session(env).run(lambda client: _instances(client, model))
    if not instances:
        of = f" of {model}" if model else ""
        stderr(env).say(f"There are no instances{of}; gpustack run MODEL deploys a model.")
    output.show(words, instances, lambda: _table(instances, datetime.now(UTC), stdout(env)))
    return 0


async def _instances(client: AdminClient, model: str | None) -> list[dict[str, Any]]:
    from gpustack.cli.lookup import INSTANCES, model_named

    if model is None:
        return await client.all(INSTANCES)
    return await client.all(INSTANCES, model_id=(await model_named(client, model))["id"])


def _table(instances: list[dict[str, Any]], now: datetime, terminal: Terminal) -> str:
    return draw(_HEADS, [_row(instance, now) for instance in instances], terminal) if instances else ""


def _row(instance: dict[str, Any], now: datetime) -> Row:
    ending = bool(instance.get("deleted_at"))
    state = "ending" if ending else str(instance.get("state"))
    done = instance.get("download_progress")
    shown = f"{state} {done:.0f}%" if state == "downloading" and done is not None else state
    placed = instance.get("worker_id") is not None
    indexes = ",".join(str(index) for index in instance.get("gpu_indexes") or ())
    return Row(
        [
            str(instance["name"]),
            str(instance.get("model_name") or "-"),
            Cell(shown, "dim" if ending else phrase.state_style(state)),
            str(instance.get("worker_name") or "-"),
            (indexes or "CPU") if placed else "-",
            str(instance.get("port") or "-"),
            str(instance.get("restart_count") or 0),
            phrase.age(instance.get("created_at"), now),
        ],
        remark="" if state == "running" else phrase.reason(instance, now),
    )

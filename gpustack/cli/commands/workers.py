"""List the machines of the cluster and what they have.

Usage:
  gpustack workers [options]

Options:
  -o, --output=FORM  table, json or yaml (default: table).
  -q, --quiet        Names only.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gpustack.cli import output, phrase
from gpustack.cli.session import open_session
from gpustack.cli.table import Cell, Row, draw
from gpustack.cli.terminal import Terminal, stderr, stdout
from gpustack.cli.usage import read

_HEADS = ("NAME", "STATE", "ADDRESS", "MEMORY", "GPUS", "VIDEO MEMORY", "VERSION", "HEARD")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each worker; memory is what models claim of what there is."""
    words = read(__doc__, "workers", argv)
    from gpustack.cli.lookup import WORKERS

    workers = open_session(env).run(lambda client: client.all(WORKERS))
    if not workers:
        stderr(env).say("No worker has joined; gpustack start --server-url URL --token TOKEN joins one.")
    output.show(words, workers, lambda: _table(workers, datetime.now(UTC), stdout(env)))
    return 0


def _table(workers: list[dict[str, Any]], now: datetime, terminal: Terminal) -> str:
    return draw(_HEADS, [_row(worker, now) for worker in workers], terminal) if workers else ""


def _row(worker: dict[str, Any], now: datetime) -> Row:
    status = worker.get("status") or {}
    state = str(worker.get("state"))
    return Row(
        [
            str(worker["name"]),
            Cell(state, phrase.state_style(state)),
            str(worker.get("ip") or "-"),
            _claimed([status.get("memory") or {}]),
            _devices(status.get("gpu_devices") or []),
            _claimed([device.get("memory") or {} for device in status.get("gpu_devices") or []]),
            str(worker.get("version") or "-"),
            phrase.age(worker.get("heartbeat_time"), now),
        ],
        remark="" if state == "ready" else phrase.one_line(worker.get("state_message")),
    )


def _claimed(memories: list[dict[str, Any]]) -> str:
    totals = [memory.get("total") for memory in memories]
    known = [total for total in totals if isinstance(total, int)]
    if not known:
        return "-"
    return f"{phrase.size(sum(memory.get('allocated') or 0 for memory in memories))} of {phrase.size(sum(known))}"


def _devices(devices: list[dict[str, Any]]) -> str:
    names = [str(device.get("name") or "?") for device in devices]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "-"

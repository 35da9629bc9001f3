"""List the machines of the cluster and what they have, bar them, and let them in again.

Usage:
  gpustack workers [options]
  gpustack workers (bar | admit) NAME...

bar voids the credential of a worker at once and keeps its machine from joining; what ran there is placed elsewhere.
admit lets a machine join as this worker with the cluster token, once: it was barred, or has lost its credential.

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
from gpustack.errors import NotFound

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("NAME", "STATE", "ADDRESS", "MEMORY", "GPUS", "VIDEO MEMORY", "VERSION", "HEARD")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each worker; memory is what models claim of what there is."""
    words = read(__doc__, "workers", argv)
    from gpustack.cli.lookup import WORKERS

    verb = next((verb for verb in ("bar", "admit") if words.flag(verb)), None)
    if verb is not None:
        names = words.many("NAME")
        open_session(env).run(lambda client: _judge(client, verb, names))
        for name in names:
            print(f"{name} is barred" if verb == "bar" else f"{name} may join")
        return 0
    workers = open_session(env).run(lambda client: client.all(WORKERS))
    if not workers:
        stderr(env).say("No worker has joined; gpustack start --server-url URL --token TOKEN joins one.")
    output.show(words, workers, lambda: _table(workers, datetime.now(UTC), stdout(env)))
    return 0


async def _judge(client: AdminClient, verb: str, names: Sequence[str]) -> None:
    from gpustack.cli.lookup import WORKERS, find

    found = [(name, await find(client, WORKERS, name)) for name in names]
    if missing := [name for name, worker in found if worker is None]:
        raise NotFound(f"There is no worker {missing[0]!r}; gpustack workers shows them")
    for _, worker in found:
        assert worker is not None
        await client.create(f"{WORKERS}/{worker['id']}/{verb}", {})


def _table(workers: list[dict[str, Any]], now: datetime, terminal: Terminal) -> str:
    return draw(_HEADS, [_row(worker, now) for worker in workers], terminal) if workers else ""


def _row(worker: dict[str, Any], now: datetime) -> Row:
    status = worker.get("status") or {}
    state = "barred" if worker.get("barred") else str(worker.get("state"))
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

"""Tell why an instance is where it is, or what would let it run.

Usage:
  gpustack explain [options] NAME

NAME is an instance, or a model, whose instances are then explained one by one.

Options:
  -o, --output=FORM  table, json or yaml (default: table).
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gpustack.cli import output, phrase
from gpustack.cli.command_line import read
from gpustack.cli.session import open_session
from gpustack.cli.terminal import Terminal, stdout

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient


_MARKS = {True: ("fits", "green"), False: ("no", "red")}
_UNKNOWN = ("not known yet", "yellow")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print what the scheduler has to say, worker by worker."""
    command_line = read(__doc__, "explain", argv)
    name = command_line.required("NAME")
    found = open_session(env).run(lambda client: _explain(client, name))
    output.show(command_line, found, lambda: "\n\n".join(_told(one, stdout(env)) for one in found))
    return 0


async def _explain(client: AdminClient, name: str) -> list[dict[str, Any]]:
    from gpustack.cli.lookup import INSTANCES, instances_named

    found = await instances_named(client, name)
    return [
        {
            **await client.get(f"{INSTANCES}/{instance['id']}/explain"),
            **{name: instance.get(name) for name in ("state", "state_message", "next_retry_at")},
        }
        for instance in found
    ]


def _told(explanation: dict[str, Any], terminal: Terminal) -> str:
    engine = explanation.get("engine")
    head = f"{explanation.get('instance')}{f' ({engine})' if engine else ''}: {explanation.get('sentence')}"
    lines = [terminal.style(head, "green" if explanation.get("fits") else "yellow")]
    if explanation.get("state") == "error":
        lines.append(f"  {terminal.style('error', 'red')}: {phrase.reason(explanation, datetime.now(UTC))}")
    if explanation.get("note"):
        lines.append(f"  {explanation['note']}")
    if explanation.get("smallest_change"):
        lines.append(f"  Smallest change: {explanation['smallest_change']}")
    for verdict in explanation.get("workers") or ():
        mark, colour = _MARKS.get(verdict.get("fits"), _UNKNOWN)
        lines.append(f"  {verdict.get('worker')}: {terminal.style(mark, colour)}")
        lines += [f"    {sentence}" for sentence in verdict.get("sentences") or ()]
    return "\n".join(lines)

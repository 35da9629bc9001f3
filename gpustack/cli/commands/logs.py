"""Print the log of an instance: what its engine wrote.

Usage:
  gpustack logs [options] NAME

NAME is an instance, or a model that has one instance only.

Options:
  -f, --follow   Go on with what is written from now on.
  --previous     The log of the run before this one: after a crash it says why.
  --tail=LINES   Only so many lines from the end.
  --member=WHO   Of an instance on several workers: a worker's name, or a number from 1.
  -h, --help     Show this help.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gpustack.cli import phrase
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.session import open_session
from gpustack.cli.terminal import LogSanitizer
from gpustack.errors import Conflict, NotFound

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Copy the log to stdout as it comes."""
    command_line = read(__doc__, "logs", argv)
    tail = command_line.whole("--tail")
    open_session(env).run(lambda client: _copy(client, command_line, -1 if tail is None else tail))
    return 0


async def _copy(client: AdminClient, command_line: CommandLine, tail: int) -> None:
    from gpustack.cli.lookup import INSTANCES, instances_named

    found = await instances_named(client, command_line.required("NAME"))
    if len(found) > 1:
        names = ", ".join(str(instance["name"]) for instance in found)
        raise Conflict(f"{command_line.text('NAME')} has several instances; name one of {names}")
    try:
        await _print(client, f"{INSTANCES}/{found[0]['id']}/logs", command_line, tail)
    except NotFound as error:
        if command_line.text("--member"):
            raise  # it says which members there are
        raise NotFound(_no_log(found[0], previous=command_line.flag("--previous"))) from error


async def _print(client: AdminClient, path: str, command_line: CommandLine, tail: int) -> None:
    previous = "true" if command_line.flag("--previous") else "false"
    washed = LogSanitizer() if sys.stdout.isatty() else None
    member = command_line.text("--member") or "0"
    async with client.text(
        path, follow=command_line.flag("--follow"), tail=tail, previous=previous, member=member
    ) as pieces:
        async for piece in pieces:
            sys.stdout.buffer.write(piece if washed is None else washed.take(piece))
            sys.stdout.buffer.flush()
        if washed is not None:
            sys.stdout.buffer.write(washed.rest())


def _no_log(instance: dict[str, Any], *, previous: bool) -> str:
    name = instance["name"]
    if previous:
        return f"{name} has no log of an earlier run: its engine was not started again"
    why = phrase.reason(instance, datetime.now(UTC))
    return (
        f"{name} has no log, as no engine was started for it: it is {instance.get('state')}"
        f"{f' ({why})' if why else ''}"
    )

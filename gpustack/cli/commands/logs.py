"""Print the logs of instances: what their engines wrote.

Usage:
  gpustack logs [options] NAME...

NAME is an instance, or a model, of which all instances are meant. Of several each line stands behind the name of its
instance; followed together, those that a model gets later join them.

Options:
  -f, --follow   Go on with what is written from now on.
  --previous     The log of the run before this one: after a crash it says why.
  --tail=LINES   Only so many lines from the end of each.
  --member=WHO   Of an instance on several workers: a worker's name, or a number from 1.
  -h, --help     Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from gpustack.cli import phrase
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.session import Doc, open_session
from gpustack.cli.terminal import Terminal, stderr, stdout
from gpustack.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from gpustack.cli.log_merging import LogMerge
    from gpustack.remote.admin_client import AdminClient

_LOOK_EVERY = 2.0


@attrs.frozen(kw_only=True)
class LogRequest:
    """Which part of each log is asked for."""

    follow: bool
    previous: bool
    tail: int
    member: str | None


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Copy the logs to stdout as they come."""
    command_line = read(__doc__, "logs", argv)
    asked = _request(command_line)
    names, terminal, aside = command_line.many("NAME"), stdout(env), stderr(env)
    open_session(env).run(lambda client: _copy(client, names, asked, terminal, aside))
    return 0


def _request(command_line: CommandLine) -> LogRequest:
    tail = command_line.whole("--tail")
    return LogRequest(
        follow=command_line.flag("--follow"),
        previous=command_line.flag("--previous"),
        tail=-1 if tail is None else tail,
        member=command_line.text("--member"),
    )


async def _copy(
    client: AdminClient, names: Sequence[str], asked: LogRequest, terminal: Terminal, aside: Terminal
) -> None:
    from gpustack.cli.log_merging import LogMerge
    from gpustack.cli.lookup import instances_named

    found: dict[int, Doc] = {}
    models = set()
    for name in names:
        instances = await instances_named(client, name)
        found.update((int(one["id"]), one) for one in instances)
        models |= {one.get("model_id") for one in instances if one.get("name") != name}
    every = list(found.values())
    merge = LogMerge(terminal, prefixed=len(every) > 1)
    if merge.prefixed and asked.follow:
        await _Following(client, asked, merge, aside, frozenset(models)).run(every)
        return
    missing = [sentence for one in every if (sentence := await _print(client, one, asked, merge))]
    if len(missing) == len(every):
        raise NotFound("; ".join(missing))
    for sentence in missing:
        aside.say(sentence)


async def _print(client: AdminClient, instance: Doc, asked: LogRequest, merge: LogMerge) -> str:
    """Copy one log; returns why there is none, empty where there is one."""
    from gpustack.cli.lookup import INSTANCES

    source = merge.source(str(instance["name"]))
    try:
        async with client.text(
            f"{INSTANCES}/{instance['id']}/logs",
            follow=asked.follow,
            tail=asked.tail,
            previous="true" if asked.previous else "false",
            member=asked.member or "0",
        ) as pieces:
            async for piece in pieces:
                source.take(piece)
    except NotFound:
        if asked.member:
            raise  # it says which members there are
        return _no_log(instance, previous=asked.previous)
    finally:
        source.end()
    return ""


def _no_log(instance: Doc, *, previous: bool) -> str:
    name = instance["name"]
    if previous:
        return f"{name} has no log of an earlier run: its engine was not started again"
    why = phrase.reason(instance, datetime.now(UTC))
    return (
        f"{name} has no log, as no engine was started for it: it is {instance.get('state')}"
        f"{f' ({why})' if why else ''}"
    )


@attrs.define(eq=False)
class _Following:
    """Follows the logs of several instances together."""

    _client: AdminClient
    _asked: LogRequest
    _merge: LogMerge
    _aside: Terminal
    _models: frozenset[Any]
    """Those of which instances that come later are followed too."""
    _open: set[int] = attrs.field(factory=set)
    _begun: set[int] = attrs.field(factory=set)
    _told: set[str] = attrs.field(factory=set)

    async def run(self, first: Sequence[Doc]) -> None:
        """Ends when no instance is left."""
        import trio

        from gpustack.cli.lookup import INSTANCES

        named = {int(one["id"]) for one in first}
        present = list(first)
        async with trio.open_nursery() as nursery:
            while present:
                for one in present:
                    if int(one["id"]) not in self._open:
                        self._open.add(int(one["id"]))
                        nursery.start_soon(self._one, one)
                await trio.sleep(_LOOK_EVERY)
                present = [
                    one
                    for one in await self._client.all(INSTANCES)
                    if int(one["id"]) in named
                    or (one.get("model_id") in self._models and not one.get("deleted_at"))
                ]
            nursery.cancel_scope.cancel()

    async def _one(self, instance: Doc) -> None:
        """Follow one log to its end. One that broke off before goes on with what is new."""
        key = int(instance["id"])
        asked = attrs.evolve(self._asked, tail=0) if key in self._begun else self._asked
        try:
            missing = await _print(self._client, instance, asked, self._merge)
            if not missing:
                self._begun.add(key)
        except Unavailable as error:
            self._begun.add(key)
            missing = f"The log of {instance['name']} broke off: {error}"
        if missing and missing not in self._told:
            self._told.add(missing)
            self._aside.say(missing)
        self._open.discard(key)

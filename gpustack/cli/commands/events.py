"""Show what happened to models, instances, workers and files; follow what happens.

Usage:
  gpustack events [options] [OBJECT]

OBJECT is a model (with its instances), an instance or a worker (with what is there) by its name, or a model file as
file/ID; model/NAME, instance/NAME or worker/NAME where several have it. The newest stands last. Who changed what, and
what was refused, is told by gpustack audit.

Options:
  -f, --follow       Go on with what happens from now on.
  --since=TIME       Not before: an instant such as 2026-01-31T08:00:00Z, or 30m, 12h or 7d ago.
  --severity=LEAST   info, warning or error (default: info): only those at least so grave.
  --kind=KIND        Such as instance.failed; "worker." is all of workers.
  -n, --limit=N      At most so many, the newest (default: 50).
  -o, --output=FORM  table, wide, json or yaml (default: table); followed, a document each.
  -h, --help         Show this help.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.columns import shortened, width_of
from gpustack.cli.command_line import CommandLine, given_only, instant_of, read
from gpustack.cli.session import Doc, open_session
from gpustack.cli.terminal import Terminal, harmless, stderr, stdout
from gpustack.errors import NotFound

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_PATH = "/v1/events"
_USUAL, _MOST = 50, 1000
_PAGES = 20
"""Pages that are looked through for an object that is gone."""
_NARROWEST, _WIDEST = 10, 24
"""Columns for the name of what an event is about."""
_STYLES = {"warning": "yellow", "error": "red"}


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a line for each event, the oldest first."""
    command_line = read(__doc__, "events", argv)
    form = command_line.choice("--output", *output.LIST_FORMS)
    filters = _filters(command_line, datetime.now(UTC))
    name, session = command_line.text("OBJECT"), open_session(env)
    told = EventLines(stdout(env), form)
    if command_line.flag("--follow"):
        session.run(lambda client: _follow(client, name, filters, told, stderr(env)))
        return 0
    events = session.run(lambda client: _newest(client, name, filters))
    if form in ("json", "yaml"):
        output.show(command_line, events, str)
        return 0
    for event in events:
        told.take(event)
    if not events:
        stderr(env).say("Nothing of that kind has happened.")
    return 0


def _filters(command_line: CommandLine, now: datetime) -> dict[str, str | int]:
    since, kind = instant_of(command_line, "--since", now), command_line.text("--kind")
    severity = command_line.choice("--severity", "info", "warning", "error")
    most = command_line.whole("--limit", least=1, most=_MOST) or _USUAL
    return given_only({"since": since, "kind": kind, "severity": severity, "limit": most})


async def _newest(client: AdminClient, name: str | None, filters: Mapping[str, str | int]) -> list[Doc]:
    from urllib.parse import urlencode

    asked = {**filters, **await _about(client, name)}
    return [*reversed((await client.get(f"{_PATH}?{urlencode(asked)}"))["items"])]


async def _about(client: AdminClient, name: str | None) -> dict[str, str | int]:
    """The filter for an object; also for one that is gone, by the events that name it. Raises NotFound, Conflict."""
    from gpustack.cli.lookup import object_named

    if name is None:
        return {}
    try:
        found = await object_named(client, name)
    except NotFound:
        return await _about_former(client, name)
    return _filter(found.api_kind, int(found.document["id"]))


def _filter(kind: str, key: int) -> dict[str, str | int]:
    """Of a model also its instances, of a worker also what is there."""
    return {f"{kind}_id": key} if kind in ("model", "worker") else {"object": f"{kind}:{key}"}


async def _about_former(client: AdminClient, name: str) -> dict[str, str | int]:
    wanted = name.partition("/")[2] or name
    for page in range(1, _PAGES + 1):
        items = (await client.get(f"{_PATH}?limit={_MOST}&page={page}"))["items"]
        for event in items:
            if event["object"]["name"] in (name, wanted):
                return _filter(str(event["object"]["kind"]), int(event["object"]["id"]))
        if len(items) < _MOST:
            break
    raise NotFound(f"There is nothing of the name {name!r}, and no event of it is kept")


async def _follow(
    client: AdminClient,
    name: str | None,
    filters: Mapping[str, str | int],
    told: EventLines,
    aside: Terminal,
) -> None:
    """Print events as they come, without end. A server that goes away is waited for."""
    from gpustack.cli.watching import Tell, follow, say_away
    from gpustack.remote.admin_client import CREATED

    asked = {**filters, **await _about(client, name)}

    async def feed(client: AdminClient, tell: Tell) -> None:
        async with client.watch(_PATH, **asked) as events:
            tell([])  # the server is there, although nothing may happen for long
            async for event in events:
                if event.kind == CREATED:
                    tell([event.item])
                    # Where the stream breaks off, it goes on behind what has come.
                    asked.update(since=int(event.item["id"]), limit=_MOST)

    def take(events: Sequence[Doc]) -> None:
        for event in events:
            told.take(event)

    await follow(client, feed, take, partial(say_away, aside))


class EventLines:
    """Writes events, a line each; where a person reads them, what happened is broken between words."""

    def __init__(self, terminal: Terminal, form: str) -> None:
        self.terminal, self.form = terminal, form
        self._name = _NARROWEST

    def take(self, event: Doc) -> None:
        """Print one."""
        if self.form == "json":
            text = output.as_json(event, indent=None)
        elif self.form == "yaml":
            text = f"---\n{output.as_yaml(event)}"
        else:
            text = "\n".join(self._lines(event))
        self.terminal.stream.write(f"{text}\n")
        self.terminal.stream.flush()

    def _lines(self, event: Doc) -> list[str]:
        about = event["object"]
        name = f"{about['kind']}/{about['name']}" if self.form == "wide" else str(about["name"])
        self._name = max(self._name, min(width_of(name), _WIDEST))
        shown = name if self.form == "wide" else shortened(name, self._name)
        head = f"{phrase.clock_time(event['at'])}  {shown}{' ' * (self._name - width_of(shown))}  "
        words = phrase.one_line(event["text"])
        if self.form == "wide":
            by = f" (by {event['actor']})" if event.get("actor") else ""
            words = f"{event['kind']}: {words}{by}"
        room = max(self.terminal.width - width_of(head) - 1, _NARROWEST)
        style = _STYLES.get(str(event["severity"]))
        broken = textwrap.wrap(words, room, break_on_hyphens=False) if self.terminal.live else [words]
        first, *others = broken or [""]
        lines = [f"{harmless(head)}{self.terminal.style(first, style)}"]
        return [*lines, *(f"{' ' * width_of(head)}{self.terminal.style(line, style)}" for line in others)]

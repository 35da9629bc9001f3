"""Show who did what, when and from where: changes, logins, and what was refused.

Usage:
  gpustack audit [options]

Options:
  --since=TIME       Not before: an instant such as 2026-01-31T08:00:00Z, or 30m, 12h or 7d ago.
  --until=TIME       Before that.
  --actor=NAME       Done by this user or worker.
  --action=ACTION    Such as model.update; "model." is all that was done to models.
  --outcome=WORD     done, refused or failed.
  -n, --limit=N      At most so many, the newest (default: 50). csv and ndjson give all.
  -o, --output=FORM  table, wide, json, yaml, csv or ndjson (default: table).
  -h, --help         Show this help.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.columns import Column
from gpustack.cli.command_line import CommandLine, given_only, instant_of, read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, open_session

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_PATH = "/v1/audit-events"
_PAGE = 100
_HEADS = (
    Column("WHEN", whole=True),
    "WHO",
    Column("MEANS", wide=True),
    "FROM",
    "ACTION",
    "ON",
    "OUTCOME",
)
_STYLES = {"refused": "yellow", "failed": "red"}


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each event, the newest first."""
    command_line = read(__doc__, "audit", argv)
    form = command_line.choice("--output", *output.LIST_FORMS, "csv", "ndjson")
    most = command_line.whole("--limit", least=1) or 50
    filters = _filters(command_line, datetime.now(UTC))
    session = open_session(env)
    if form in ("csv", "ndjson"):
        session.run(lambda client: _export(client, {**filters, "format": form}))
        return 0
    events = session.run(lambda client: _newest(client, filters, most))
    output.show_list(command_line, events, _HEADS, _row, env, empty="Nothing of that kind was done.")
    return 0


def _filters(command_line: CommandLine, now: datetime) -> dict[str, str]:
    given = {name: command_line.text(f"--{name}") for name in ("actor", "action", "outcome")}
    times = {"from": instant_of(command_line, "--since", now), "to": instant_of(command_line, "--until", now)}
    return given_only({**given, **times})


async def _newest(client: AdminClient, filters: Mapping[str, str], most: int) -> list[Doc]:
    from urllib.parse import urlencode

    found: list[Doc] = []
    while len(found) < most:
        page = {"page": len(found) // _PAGE + 1, "perPage": _PAGE}
        items = (await client.get(f"{_PATH}?{urlencode({**filters, **page})}"))["items"]
        found += items
        if len(items) < _PAGE:
            break
    return found[:most]


async def _export(client: AdminClient, filters: Mapping[str, str]) -> None:
    async with client.text(f"{_PATH}/export", follow=False, **filters) as pieces:
        async for piece in pieces:
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _row(event: Doc) -> Row:
    outcome = str(event["outcome"])
    status = "" if outcome == "done" else f" {event['status']}"
    count = (event.get("details") or {}).get("count")
    return Row(
        [
            phrase.clock_time(event["at"]),
            str(event["actor_name"] or event["actor_role"] or "-"),
            str(event["means"] or "-"),
            str(event["address"] or "-"),
            str(event["action"]),
            str(event["target_name"] or event["target_id"] or "-"),
            Cell(f"{outcome}{status}{f' x{count}' if count else ''}", _STYLES.get(outcome)),
        ]
    )

"""Show what you, a key, an account or a model may use and what is left, and set it.

Usage:
  gpustack limits [options]
  gpustack limits [options] (key | user | model) NAME
  gpustack limits set [options] (key | user | model) NAME LIMIT...

LIMIT is NAME=NUMBER, or NAME=none to take it away; limits that are not named stay. Names are requests_per_minute,
tokens_per_minute, concurrent_requests, tokens_per_day and tokens_per_month (of UTC). A key is one of your own.

Options:
  -o, --output=FORM  table, json or yaml (default: table).
  --dry-run          Only tell what would be changed.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.command_line import CommandLine, read, suggestion
from gpustack.cli.output import Row, draw_table
from gpustack.cli.session import Doc, open_session
from gpustack.cli.terminal import stdout

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("LIMIT", "AT MOST", "LEFT", "UNTIL")
LIMITS = (
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_requests",
    "tokens_per_day",
    "tokens_per_month",
)
_BUDGETS = {"tokens_per_day": "day", "tokens_per_month": "month"}
_NONE = "none"


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each limit."""
    command_line = read(__doc__, "limits", argv)
    changes = limit_changes(command_line) if command_line.flag("set") else {}
    kind = next((kind for kind in ("key", "user", "model") if command_line.flag(kind)), None)
    name = command_line.text("NAME") or ""
    found = open_session(env).run(lambda client: _limits(client, kind, name, changes))
    rows = [_row(limit, found) for limit in LIMITS]
    output.show(command_line, found, lambda: draw_table(_HEADS, rows, stdout(env)))
    return 0


def limit_changes(command_line: CommandLine) -> Mapping[str, int | None]:
    """The limits that the command line sets; raises UsageError."""
    found: dict[str, int | None] = {}
    for text in command_line.many("LIMIT"):
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if name not in LIMITS:
            guess = suggestion(name, LIMITS, f"limits are {', '.join(LIMITS)}")
            raise command_line.error(f"There is no limit {name!r}; {guess}")
        is_number = value.isascii() and value.isdigit() and len(value) < 16
        if not equals or not (is_number or value == _NONE):
            raise command_line.error(f"{name} must be a whole number or {_NONE}, not {value!r}")
        found[name] = None if value == _NONE else int(value)
    return found


async def _limits(client: AdminClient, kind: str | None, name: str, changes: Mapping[str, int | None]) -> Doc:
    from gpustack.cli.lookup import KEYS, MODELS, USERS, key_named, model_named, user_named

    if kind is None:
        return await client.get(f"{USERS}/me/limits")
    path, find = {
        "key": (KEYS, key_named),
        "user": (USERS, user_named),
        "model": (MODELS, model_named),
    }[kind]
    item = await find(client, name)
    if changes:
        kept = {
            key: value
            for key, value in {**(item.get("limits") or {}), **changes}.items()
            if value is not None
        }
        await client.update(f"{path}/{item['id']}", {"limits": kept or None})
    return await client.get(f"{path}/{item['id']}/limits")


def _row(name: str, found: Doc) -> Row:
    most = (found.get("limits") or {}).get(name)
    budget = found.get(_BUDGETS.get(name, "")) or {}
    return Row(
        [
            name,
            _NONE if most is None else f"{most}",
            str(budget.get("remaining", "-")),
            phrase.local_time(budget.get("ends_at")),
        ]
    )

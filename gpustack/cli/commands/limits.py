"""Show what you, a key, an account or a model may use and what is left, and set it.

Usage:
  gpustack limits [options]
  gpustack limits [options] (key | user | model) NAME
  gpustack limits set [options] (key | user | model) NAME LIMIT...

LIMIT is NAME=NUMBER, or NAME=none to take it away; limits that are not named stay. Names are requests_per_minute,
tokens_per_minute, concurrent_requests, tokens_per_day and tokens_per_month (of UTC). A key is one of your own.

Options:
  -o, --output=FORM  table, json or yaml (default: table).
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpustack.cli import output, phrase
from gpustack.cli.misuse import UsageError
from gpustack.cli.nearest import nearest
from gpustack.cli.session import open_session
from gpustack.cli.table import Row, draw
from gpustack.cli.terminal import Terminal, stdout
from gpustack.cli.usage import CommandLine, read

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

Doc = dict[str, Any]

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
    words = read(__doc__, "limits", argv)
    changes = given(words) if words.flag("set") else {}
    kind = next((kind for kind in ("key", "user", "model") if words.flag(kind)), None)
    name = words.text("NAME") or ""
    found = open_session(env).run(lambda client: _limits(client, kind, name, changes))
    output.show(words, found, lambda: _table(found, stdout(env)))
    return 0


def given(words: CommandLine) -> Mapping[str, int | None]:
    """The limits that the command line sets; raises Misuse."""
    found: dict[str, int | None] = {}
    for text in words.many("LIMIT"):
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if name not in LIMITS:
            close = nearest(name, LIMITS)
            guess = f"did you mean {close}?" if close else f"limits are {', '.join(LIMITS)}"
            raise UsageError(f"There is no limit {name!r}; {guess}", words.usage)
        is_number = value.isascii() and value.isdigit() and len(value) < 16
        if not equals or not (is_number or value == _NONE):
            raise UsageError(f"{name} must be a whole number or {_NONE}, not {value!r}", words.usage)
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


def _table(found: Doc, terminal: Terminal) -> str:
    return draw(_HEADS, [_row(name, found) for name in LIMITS], terminal)


def _row(name: str, found: Doc) -> Row:
    most = (found.get("limits") or {}).get(name)
    budget = found.get(_BUDGETS.get(name, "")) or {}
    ends = phrase.read_instant(budget.get("ends_at"))
    return Row(
        [
            name,
            _NONE if most is None else f"{most}",
            str(budget.get("remaining", "-")),
            "-" if ends is None else ends.astimezone().isoformat(sep=" ", timespec="minutes"),
        ]
    )

"""List your API keys, make one, switch them off and on, and remove them.

Usage:
  gpustack keys [options]
  gpustack keys create [options] [--scope WORD]... [--model MODEL]... NAME
  gpustack keys (enable | disable | rm) [options] NAME...

create prints the key, which is shown this once and is not kept. It may do all that you may, unless scopes or models
are named. What a key may use is set with gpustack limits.

Options:
  --all                   With the keys of everybody, for administrators.
  --scope=WORD            inference, read or management (which includes read); may be repeated.
  --model=MODEL           A model that it may use; may be repeated.
  --expires-in=DAYS       Days after which it ends (default: never).
  --description=TEXT      What it is for.
  -o, --output=FORM       table, wide, json or yaml (default: table).
  -q, --quiet             Names only.
  --dry-run               Only tell what would be changed.
  -h, --help              Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.command_line import CommandLine, given_only, read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, open_session
from gpustack.cli.terminal import stderr

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("NAME", "STATE", "SCOPES", "MODELS", "LAST USED", "EXPIRES", "AGE")
_SCOPES = ("inference", "read", "management")
_DONE = {"enable": "works again", "disable": "is switched off", "rm": "is removed"}


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each key, or what has been done."""
    command_line = read(__doc__, "keys", argv)
    from gpustack.cli.lookup import KEYS

    if command_line.flag("create"):
        document = key_fields(command_line)
        command_line.choice("--output", *output.FORMS)  # before it is made: its value is shown only once
        made = open_session(env).run(lambda client: client.create(KEYS, document))
        stderr(env).say("This is shown once: put it where it is used, such as GPUSTACK_API_KEY.")
        output.show(command_line, made, lambda: str(made["value"]), name="value")
        return 0
    verb = next((verb for verb in _DONE if command_line.flag(verb)), None)
    if verb is not None:
        names = command_line.many("NAME")
        open_session(env).run(lambda client: _change(client, verb, names))
        for name in names:
            print(f"{name} {_DONE[verb]}")
        return 0
    keys, owners = open_session(env).run(lambda client: _keys(client, every=command_line.flag("--all")))
    heads = ("OWNER", *_HEADS) if owners else _HEADS
    row = partial(_row, owners=owners, now=datetime.now(UTC))
    empty = "There are no API keys; gpustack keys create NAME makes one."
    output.show_list(command_line, keys, heads, row, env, empty=empty)
    return 0


def key_fields(command_line: CommandLine) -> Doc:
    """The fields of a new key; raises UsageError."""
    fields: Doc = {"name": command_line.many("NAME")[0], "description": command_line.text("--description")}
    scopes = command_line.many("--scope")
    if unknown := [scope for scope in scopes if scope not in _SCOPES]:
        raise command_line.error(f"--scope must be one of {', '.join(_SCOPES)}, not {unknown[0]!r}")
    days = command_line.whole("--expires-in", least=1)
    fields["expires_in"] = None if days is None else days * 86400
    fields["scopes"] = scopes or None
    fields["allowed_model_names"] = command_line.many("--model") or None
    return given_only(fields)


async def _keys(client: AdminClient, *, every: bool) -> tuple[list[Doc], Mapping[int, str]]:
    """The keys, and with those of everybody the names of their owners."""
    from gpustack.cli.lookup import KEYS, USERS

    if not every:
        return await client.all(KEYS), {}
    owners = {int(user["id"]): str(user["username"]) for user in await client.all(USERS)}
    return await client.all(KEYS, all=True), owners


async def _change(client: AdminClient, verb: str, names: Sequence[str]) -> None:
    """All names are looked up before anything is changed."""
    from gpustack.cli.lookup import KEYS, key_named

    for key in [await key_named(client, name) for name in names]:
        if verb == "rm":
            await client.delete(f"{KEYS}/{key['id']}")
        else:
            await client.update(f"{KEYS}/{key['id']}", {"is_enabled": verb == "enable"})


def _row(key: Doc, owners: Mapping[int, str], now: datetime) -> Row:
    ends = phrase.read_instant(key.get("expires_at"))
    over = ends is not None and ends <= now
    state = "expired" if over else "works" if key.get("is_enabled") else "off"
    return Row(
        [
            *([owners.get(key["user_id"], str(key["user_id"]))] if owners else []),
            str(key["name"]),
            Cell(state, "green" if state == "works" else "yellow"),
            ",".join(key.get("scopes") or ()) or "all",
            ",".join(key.get("allowed_model_names") or ()) or "all",
            phrase.age(key.get("last_used_at"), now),
            phrase.local_time(key.get("expires_at"), unknown="never"),
            phrase.age(key.get("created_at"), now),
        ],
        remark=phrase.one_line(key.get("description")),
    )

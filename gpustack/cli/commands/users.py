"""List the accounts, make one, change what it may, and remove it.

Usage:
  gpustack users [options]
  gpustack users create [options] NAME
  gpustack users (enable | disable | promote | demote | reset-password | rm) [options] NAME...

create and reset-password print a random password, to be changed at the next login, or take one from stdin. promote
makes administrators, demote takes that back; disable ends logins and keys at once, rm removes the account with its
keys. What an account may use is set with gpustack limits.

Options:
  --admin             Make it an administrator's.
  --full-name=TEXT    What the person is called.
  --password-stdin    Read the password from the first line of stdin; it need not be changed then.
  -o, --output=FORM   table, wide, json or yaml (default: table).
  -q, --quiet         Names only.
  --dry-run           Only tell what would be changed.
  -h, --help          Show this help.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, open_session

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("NAME", "ROLE", "STATE", "FULL NAME", "SOURCE", "AGE")
_CHANGES: Mapping[str, tuple[Doc, str]] = {
    "enable": ({"is_active": True}, "may log in again"),
    "disable": ({"is_active": False}, "is switched off"),
    "promote": ({"is_admin": True}, "is an administrator"),
    "demote": ({"is_admin": False}, "is no administrator"),
    "rm": ({}, "is removed"),
}
_LONGEST = 4096


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each account, or what has been done."""
    command_line = read(__doc__, "users", argv)
    from gpustack.cli.lookup import USERS

    names = command_line.many("NAME")
    if command_line.flag("create"):
        return _create(command_line, names[0], env)
    if command_line.flag("reset-password"):
        return _reset(command_line, names, env)
    verb = next((verb for verb in _CHANGES if command_line.flag(verb)), None)
    if verb is not None:
        open_session(env).run(lambda client: _change(client, verb, names))
        for name in names:
            print(f"{name} {_CHANGES[verb][1]}")
        return 0
    users = open_session(env).run(lambda client: client.all(USERS))
    row = partial(_row, now=datetime.now(UTC))
    output.show_list(command_line, users, _HEADS, row, env, name="username")
    return 0


def _create(command_line: CommandLine, name: str, env: Mapping[str, str]) -> int:
    from gpustack.cli.lookup import USERS

    password, given = _password(command_line)
    fields = {"username": name, "password": password, "is_admin": command_line.flag("--admin")}
    fields |= {"full_name": command_line.text("--full-name"), "require_password_change": not given}
    open_session(env).run(lambda client: client.create(USERS, fields))
    print(f"{name} may log in" if given else f"The password of {name} is: {password}")
    return 0


def _reset(command_line: CommandLine, names: Sequence[str], env: Mapping[str, str]) -> int:
    if command_line.flag("--password-stdin") and len(names) > 1:
        raise command_line.error("--password-stdin is for one account")
    passwords = {name: _password(command_line) for name in names}
    done: list[str] = []
    try:
        open_session(env).run(lambda client: _set_passwords(client, passwords, done))
    finally:
        # A password that holds already must be seen, even if the next one failed.
        for name in done:
            password, given = passwords[name]
            print(
                f"The password of {name} is changed"
                if given
                else f"The new password of {name} is: {password}"
            )
    return 0


async def _set_passwords(
    client: AdminClient, passwords: Mapping[str, tuple[str, bool]], done: list[str]
) -> None:
    """All names are looked up before any password is changed."""
    from gpustack.cli.lookup import USERS, user_named

    for user, (name, (password, given)) in zip(
        [await user_named(client, name) for name in passwords], passwords.items(), strict=True
    ):
        changes = {"password": password, "require_password_change": not given}
        await client.update(f"{USERS}/{user['id']}", changes)
        done.append(name)


def _password(command_line: CommandLine) -> tuple[str, bool]:
    """A password, and whether it was given: never on the command line, which everybody on this machine can see."""
    from gpustack.config.secret import make_password

    if not command_line.flag("--password-stdin"):
        return make_password(random.SystemRandom()), False
    given = sys.stdin.readline(_LONGEST).rstrip("\r\n")
    if not given:
        raise command_line.error("--password-stdin: there is no password on the first line of stdin")
    return given, True


async def _change(client: AdminClient, verb: str, names: Sequence[str]) -> None:
    from gpustack.cli.lookup import USERS, user_named

    if verb != "rm":
        await _update(client, names, _CHANGES[verb][0])
        return
    for user in [await user_named(client, name) for name in names]:
        await client.delete(f"{USERS}/{user['id']}")


async def _update(client: AdminClient, names: Sequence[str], changes: Doc) -> None:
    """All names are looked up before anything is changed."""
    from gpustack.cli.lookup import USERS, user_named

    for user in [await user_named(client, name) for name in names]:
        await client.update(f"{USERS}/{user['id']}", changes)


def _row(user: Doc, now: datetime) -> Row:
    state = "active" if user.get("is_active") else "off"
    return Row(
        [
            str(user["username"]),
            "admin" if user.get("is_admin") else "user",
            Cell(state, "green" if state == "active" else "yellow"),
            str(user.get("full_name") or "-"),
            str(user.get("source") or "-"),
            phrase.age(user.get("created_at"), now),
        ],
        remark="must change its password at the next login" if user.get("require_password_change") else "",
    )

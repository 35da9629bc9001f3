"""Name servers and keep a key for each; say which one commands talk to.

Usage:
  gpustack context [options]
  gpustack context ls [options]
  gpustack context add [options] NAME URL
  gpustack context use [options] NAME
  gpustack context rm [options] NAME...

A command talks to the server of --context NAME (which every one takes that talks to a server), else to that of
GPUSTACK_SERVER_URL with the key GPUSTACK_API_KEY, else to that of GPUSTACK_CONTEXT, else to that of the context in use.
The context local is the server of this machine. add asks for a key of that server (gpustack keys create NAME makes one
there); it is kept in a file that only you can read. A name that is there gets the new address and key.

Options:
  --key-file=FILE    Read the key from the first line of this file.
  --key-stdin        Read the key from the first line of stdin.
  --no-key           Keep no key: the server wants none, or GPUSTACK_API_KEY has it.
  --no-check         Do not ask the server whether it takes the key.
  --use              Use it from now on.
  --dry-run          Only tell what would be changed.
  -o, --output=FORM  table, json or yaml (default: table).
  -q, --quiet        Names only.
  -h, --help         Show this help.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import attrs

from gpustack.cli import output, server_context
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.dry_run import intend
from gpustack.cli.output import Cell, Row
from gpustack.cli.server_context import LOCAL, ContextRegistry, ServerContext, load_contexts
from gpustack.cli.session import Doc, ServerAddress, ServerSession, checked_key, clean_url
from gpustack.cli.terminal import stderr
from gpustack.text import redacted

_HEADS = ("", "NAME", "SERVER", "KEY")
_LONGEST = 4096
_THIS_MACHINE = "the one on this machine"


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each context, or what has been done."""
    command_line = read(__doc__, "context", argv)
    if command_line.flag("add"):
        return _add(command_line, env)
    names = command_line.many("NAME")
    if command_line.flag("use"):
        return _use(names[0], env)
    if command_line.flag("rm"):
        return _remove(names, env)
    registry = load_contexts(env)
    documents = [
        {"name": LOCAL, "url": None, "has_key": False, "current": registry.current == LOCAL},
        *(_document(one, registry) for one in registry.contexts.values()),
    ]
    output.show_list(command_line, documents, _HEADS, _row, env)
    if output.is_table(command_line):
        for line in _overruled(registry, env):
            stderr(env).say(line)
    return 0


def _document(context: ServerContext, registry: ContextRegistry) -> Doc:
    is_current = context.name == registry.current
    has_key = context.key is not None
    return {"name": context.name, "url": redacted(context.url), "has_key": has_key, "current": is_current}


def _row(context: Doc) -> Row:
    mark = Cell("*", "green") if context["current"] else ""
    url = str(context["url"] or _THIS_MACHINE)
    return Row([mark, str(context["name"]), url, "yes" if context["has_key"] else "-"])


def _overruled(registry: ContextRegistry, env: Mapping[str, str]) -> list[str]:
    """What the environment says instead of the context in use."""
    if env.get("GPUSTACK_SERVER_URL"):
        return ["GPUSTACK_SERVER_URL is set: commands talk to that server unless --context is given."]
    named = env.get(server_context.VARIABLE, "")
    lines = [f"{server_context.VARIABLE} is set: commands talk to {named}."] if named else []
    if env.get("GPUSTACK_API_KEY"):
        lines.append("GPUSTACK_API_KEY is set: it is used in place of the key of the context.")
    return lines


def _add(command_line: CommandLine, env: Mapping[str, str]) -> int:
    name, is_used = server_context.checked_name(command_line.many("NAME")[0]), command_line.flag("--use")
    url = clean_url(command_line.required("URL"), "URL")
    key = None if command_line.flag("--no-key") else _given_key(command_line, env, url)
    context = ServerContext(name=name, url=url, key=key)
    aside = stderr(env)
    if not command_line.flag("--no-check"):
        aside.say(_checked(context))
    path = server_context.contexts_file(env)
    used = [f"use {name} from now on"] if is_used else []
    intend(env, f"keep context {name} ({url}) in {path}", *used)
    with server_context.changing(env) as versions:
        before = versions[-1]
        contexts = dict(sorted({**before.contexts, name: context}.items()))
        versions.append(ContextRegistry(contexts, name if is_used else before.current))
    print(f"{name} is {redacted(url)}" + ("; commands talk to it now" if is_used else ""))
    if not is_used and before.current != name:
        aside.say(f"gpustack context use {name} makes commands talk to it; --context {name} does so once.")
    return 0


def _given_key(command_line: CommandLine, env: Mapping[str, str], url: str) -> str | None:
    """The key, never of the command line, which everybody on this machine can see. Raises UsageError."""
    from gpustack.cli.input_file import read_input

    file = command_line.text("--key-file")
    if file is not None and command_line.flag("--key-stdin"):
        raise command_line.error("--key-file and --key-stdin exclude each other")
    if file is not None:
        text = read_input(command_line, file, _LONGEST).decode("utf-8", "replace").partition("\n")[0]
    elif command_line.flag("--key-stdin"):
        text = sys.stdin.readline(_LONGEST)
    elif sys.stdin.isatty():
        from getpass import getpass

        text = getpass(f"Key for {redacted(url)} (empty for none): ")
        if not text.strip():
            return None
    else:
        raise command_line.error(
            "There is no terminal to ask for a key: give --key-file, --key-stdin or --no-key"
        )
    if (key := checked_key(text, "The key")) is None:
        raise command_line.error("There is no key on the first line of it")
    return key


def _checked(context: ServerContext) -> str:
    """Ask the server who we are to it. Raises Unauthorized for a key that it does not take, and what says that there
    is no GPUStack server."""
    address = ServerAddress(
        url=context.url, key=context.key, origin=f"context {context.name}", key_origin="this context"
    )
    me = ServerSession(address).run(lambda client: client.get("/v1/users/me"))
    return (
        f"The server takes you for {me.get('username')}{', an administrator' if me.get('is_admin') else ''}."
    )


def _use(name: str, env: Mapping[str, str]) -> int:
    found = load_contexts(env).named(name)
    intend(env, f"use context {name}")
    with server_context.changing(env) as versions:
        versions[-1].named(name)
        versions.append(attrs.evolve(versions[-1], current=name))
    print(f"Commands talk to {_THIS_MACHINE if found is None else redacted(found.url)}")
    for line in _overruled(versions[-1], env):
        stderr(env).say(line)
    return 0


def _remove(names: Sequence[str], env: Mapping[str, str]) -> int:
    registry = load_contexts(env)
    for name in names:
        registry.named(server_context.checked_name(name))
    intend(env, *(f"remove context {name} with its key" for name in names))
    with server_context.changing(env) as versions:
        before = versions[-1]
        left = {name: one for name, one in before.contexts.items() if name not in names}
        versions.append(ContextRegistry(left, LOCAL if before.current in names else before.current))
    for name in names:
        print(f"{name} is removed")
    if before.current in names:
        stderr(env).say(f"It was in use: commands talk to {_THIS_MACHINE} now.")
    return 0

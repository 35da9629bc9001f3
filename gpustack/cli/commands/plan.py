"""Show what would come of changes, before anything is done.

Usage:
  gpustack plan [options] [-f FILE]... [--add-worker=SPEC]... [--lose=WORKER]... [--drain=WORKER]...

It tells where instances would run, which would end or stop, what would not fit and why, and which files would be
fetched. --out keeps the plan; gpustack apply --plan carries it out as long as nothing has changed on which it rests.

Options:
  -f, --file=FILE    Manifests as for gpustack apply; may be repeated.
  --add-worker=SPEC  Suppose a worker more: COUNTxKIND such as 4xRTX4090, or COUNTxSIZE such as 2x24GiB; with
                     +SIZE for its memory (4xRTX4090+256GiB). May be repeated.
  --lose=WORKER      Suppose this worker is gone for good; may be repeated.
  --drain=WORKER     Suppose this worker is drained; may be repeated.
  --out=FILE         Write the plan to this file, which only you can read: it holds the manifests.
  -o, --output=FORM  table, json or yaml (default: table).
  -h, --help         Show this help.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.command_line import read
from gpustack.cli.session import Doc, open_session
from gpustack.cli.terminal import Terminal, stderr, stdout

if TYPE_CHECKING:
    from gpustack.cli.manifest_file import FileDocument
    from gpustack.remote.admin_client import AdminClient

_QUESTION = {"add_workers": "--add-worker", "lose_workers": "--lose", "drain_workers": "--drain"}


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print what would come of it."""
    command_line = read(__doc__, "plan", argv)
    from gpustack.cli.manifest_file import read_manifest_files

    names = command_line.many("--file")
    files = read_manifest_files(command_line, names) if names else []
    question = {field: command_line.many(option) for field, option in _QUESTION.items()}
    if not files and not any(question.values()):
        raise command_line.error("Say what to plan: -f FILE, --add-worker, --lose or --drain")
    found = open_session(env).run(lambda client: _ask(client, files, question))
    output.show(command_line, found, lambda: "\n".join(_told(found, question, stdout(env))))
    out = command_line.text("--out")
    if out is not None:
        documents = [one.document.value for one in files]
        document = {**question, "documents": documents, "plan": found}
        output.write_file(command_line, out, output.as_json(document) + "\n")
        stderr(env).say(_what_for(out, question))
    return 0


async def _ask(
    client: AdminClient, files: Sequence[FileDocument], question: Mapping[str, Sequence[str]]
) -> Doc:
    from gpustack.cli.manifest_file import PLANS, send

    return await send(client, PLANS, files, question)


def _what_for(out: str, question: Mapping[str, Sequence[str]]) -> str:
    supposed = [_QUESTION[field] for field in ("add_workers", "lose_workers") if question[field]]
    if supposed:
        return (
            f"The plan is in {out}. With {' and '.join(supposed)} it is a question: it cannot be carried out"
        )
    return f"The plan is in {out}; gpustack apply --plan {shlex.quote(out)} carries it out"


def _told(plan: Doc, question: Mapping[str, Sequence[str]], terminal: Terminal) -> Iterator[str]:
    from gpustack.cli.commands.apply import told

    changes = [one for one in plan["changes"] if one["change"] != "unchanged"]
    if changes:
        yield told(changes, terminal)
    for verb, field in (("adds", "add_workers"), ("loses", "lose_workers"), ("drains", "drain_workers")):
        if question[field]:
            yield f"supposing that the cluster {verb} {', '.join(question[field])}"
    for one in plan["remarks"]:
        yield terminal.style(f"  {one}", "dim")
    yield from _instances(plan, terminal)
    for one in plan["models"]:
        short = one["then"] < one["wanted"]
        line = f"{one['model']}: {one['now']} of {one['wanted']} now, {one['then']} then"
        yield terminal.style(line, "red" if short else None)
    if not (plan["placements"] or plan["ends"] or plan["waits"]):
        yield "No instance starts, moves or ends."


def _instances(plan: Doc, terminal: Terminal) -> Iterator[str]:
    for one in plan["placements"]:
        name = one.get("instance") or f"{one['model']} (a new instance)"
        yield f"{terminal.style('runs', 'green')}  {name} on {one['worker']}"
        yield f"  {one['place']}"
        if one.get("came_from"):
            yield f"  it is now on {one['came_from']}"
        if one.get("note"):
            yield f"  {one['note']}"
        for fetch in one["fetches"]:
            yield f"  {_fetched(fetch)}"
    for one in plan["ends"]:
        yield f"{terminal.style('ends', 'yellow')}  {one['instance']}: {one['why']}"
        if one.get("place"):
            yield f"  it is now on {one['place']}"
    yield from _waiting(plan["waits"], terminal)


def _waiting(waits: Sequence[Doc], terminal: Terminal) -> Iterator[str]:
    """Those that have no place, new ones of a model that wait for the same together."""
    alike: dict[tuple[str, ...], list[Doc]] = {}
    for one in waits:
        own = str(one.get("instance") or "")
        alike.setdefault((own, str(one["model"]), phrase.one_line(one["why"])), []).append(one)
    for (own, model, why), found in alike.items():
        new = "a new instance" if len(found) == 1 else f"{len(found)} new instances"
        verb = "stops" if found[0]["stopped"] else "waits"
        yield f"{terminal.style(verb, 'red')} {own or f'{model} ({new})'}: {why}"


def _fetched(fetch: Doc) -> str:
    size = phrase.size(fetch["bytes"]) if fetch.get("bytes") is not None else "files of unknown size"
    seconds = fetch.get("seconds")
    took = "in a time that is not known" if seconds is None else f"in about {phrase.clock(seconds)}"
    return f"{fetch['worker']} fetches {size} {took}"

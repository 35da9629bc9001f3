"""Show what applying manifests would change.

Usage:
  gpustack diff [options] (-f FILE)...

What the files do not describe is named at the end; apply leaves it alone.

Options:
  -f, --file=FILE    A file, a folder (its .yaml, .yml and .json files) or - for stdin; may be repeated.
  --exit-code        End with 3 where something differs.
  -o, --output=FORM  table, json or yaml (default: table).
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpustack.cli import output
from gpustack.cli.command_line import read
from gpustack.cli.session import Doc, open_session
from gpustack.cli.terminal import Terminal, stderr, stdout

if TYPE_CHECKING:
    from gpustack.cli.manifest_file import FileDocument
    from gpustack.remote.admin_client import AdminClient

_DIFFERS = 3


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the differing fields of each object."""
    command_line = read(__doc__, "diff", argv)
    from gpustack.cli.manifest_file import names_of, read_manifest_files

    files = read_manifest_files(command_line, command_line.many("--file"))
    found = open_session(env).run(lambda client: _compare(client, files))
    differing = [one for one in found["objects"] if one["change"] != "unchanged"]
    output.show(command_line, {**found, "objects": differing}, lambda: _told(differing, stdout(env)))
    aside = stderr(env)
    if not differing:
        aside.say("Nothing differs.")
    if found["elsewhere"]:
        aside.say(f"Not described by these files: {names_of(found['elsewhere'])}")
    return _DIFFERS if differing and command_line.flag("--exit-code") else 0


async def _compare(client: AdminClient, files: Sequence[FileDocument]) -> Doc:
    from gpustack.cli.manifest_file import MANIFESTS, send

    answer = await send(client, MANIFESTS, files, {"dry_run": True})
    described = {(one["kind"], one["name"]) for one in answer["objects"]}
    there = [name_of(one) for one in (await client.get(MANIFESTS))["documents"]]
    elsewhere = [{"kind": kind, "name": name} for kind, name in there if (kind, name) not in described]
    return {"objects": answer["objects"], "elsewhere": elsewhere}


def name_of(manifest: Doc) -> tuple[str, str]:
    """Kind and name of what a manifest describes; limits have the name of an account, or account/key."""
    if "name" in manifest:
        return str(manifest["kind"]), str(manifest["name"])
    key = manifest.get("key")
    return str(manifest["kind"]), str(manifest["user"]) if key is None else f"{manifest['user']}/{key}"


def _told(objects: Sequence[Doc], terminal: Terminal) -> str:
    from gpustack.cli.manifest_file import drawn

    lines = []
    for one in objects:
        is_new = one["change"] == "created"
        lines.append(
            terminal.style(f"{one['kind']}/{one['name']}{' is not there yet' if is_new else ''}", "bold")
        )
        for name, pair in one["fields"].items():
            lines.append(terminal.style(f"- {name}: {drawn(pair.get('from'))}", "red"))
            lines.append(terminal.style(f"+ {name}: {drawn(pair.get('to'))}", "green"))
    return "\n".join(lines)

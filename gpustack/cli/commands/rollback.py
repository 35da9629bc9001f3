"""Bring a former revision of a model back.

Usage:
  gpustack rollback [options] NAME

Without --to it is the one before the last change. A rollback is a change, and can be rolled back itself.

Options:
  --to=NUMBER        The revision, as gpustack revisions numbers them.
  --dry-run          Only tell what would be changed.
  -o, --output=FORM  table, json or yaml (default: table).
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpustack.cli import output
from gpustack.cli.command_line import read
from gpustack.cli.session import Doc, open_session

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the fields that changed."""
    command_line = read(__doc__, "rollback", argv)
    name, number = command_line.required("NAME"), command_line.whole("--to", least=1)
    body = {"to": number, "dry_run": command_line.flag("--dry-run")}
    answer = open_session(env).run(lambda client: _roll_back(client, name, body))
    output.show(command_line, answer, lambda: _told(name, answer))
    return 0


async def _roll_back(client: AdminClient, name: str, body: Doc) -> Doc:
    from gpustack.cli.lookup import MODELS, model_named

    model = await model_named(client, name)
    return await client.create(f"{MODELS}/{model['id']}/rollback", body)


def _told(name: str, answer: Doc) -> str:
    from gpustack.cli.manifest_file import drawn

    verb = "would be" if answer["dry_run"] else "is"
    lines = [f"{name} {verb} as at revision {answer['to']}"]
    for field, pair in answer["fields"].items():
        lines.append(f"  {field}: {drawn(pair.get('from'))} -> {drawn(pair.get('to'))}")
    return "\n".join(lines)

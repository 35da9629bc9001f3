"""Show the last changes of a model, the newest first.

Usage:
  gpustack revisions [options] NAME

gpustack rollback brings one of them back. The first line is how the model is now.

Options:
  -o, --output=FORM  table, wide, json or yaml (default: table).
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.command_line import read
from gpustack.cli.output import Row
from gpustack.cli.session import Doc, open_session
from gpustack.text import listed

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("REVISION", "AGE", "BY", "CHANGED")
_SHOWN = 3


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each revision, with the fields that it changed."""
    command_line = read(__doc__, "revisions", argv)
    name = command_line.required("NAME")
    found = open_session(env).run(lambda client: _revisions(client, name))
    row = partial(_row, now=datetime.now(UTC))
    hint = f"{name} has not changed since revisions are kept."
    output.show_list(command_line, found, _HEADS, row, env, name="number", empty=hint)
    return 0


async def _revisions(client: AdminClient, name: str) -> list[Doc]:
    from gpustack.cli.lookup import MODELS, model_named

    model = await model_named(client, name)
    return list((await client.get(f"{MODELS}/{model['id']}/revisions"))["items"])


def _row(revision: Doc, now: datetime) -> Row:
    fields = list(revision["fields"])
    told = listed(fields, _SHOWN)
    if revision.get("rolled_back_to"):
        told = f"back to {revision['rolled_back_to']}: {told}"
    by = str(revision.get("changed_by") or "-")
    return Row([str(revision["number"]), phrase.age(revision.get("at"), now), by, told or "-"])

"""List the model files on workers, and remove those that no instance uses.

Usage:
  gpustack files [options]
  gpustack files rm [options] ID...

rm removes what was fetched, with its record. Files at a local path were there before, and are always kept.

Options:
  --keep             Remove only the record; the files stay.
  -o, --output=FORM  table, json or yaml (default: table).
  -q, --quiet        Numbers only.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.command_line import read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, open_session

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("ID", "SOURCE", "WORKER", "STATE", "SIZE", "AGE")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each source on each worker, or what has been removed."""
    command_line = read(__doc__, "files", argv)
    if command_line.flag("rm"):
        ids = command_line.many("ID")
        if wrong := [text for text in ids if not (text.isascii() and text.isdigit())]:
            raise command_line.error(f"ID must be a number of gpustack files, not {wrong[0]!r}")
        cleanup = not command_line.flag("--keep")
        for sentence in open_session(env).run(lambda client: _remove(client, ids, cleanup)):
            print(sentence)
        return 0
    files, names = open_session(env).run(_files)
    row = partial(_row, names=names, now=datetime.now(UTC))
    empty = "No worker has model files yet; gpustack pull SOURCE fetches some."
    output.show_list(command_line, files, _HEADS, row, env, name="id", empty=empty)
    return 0


async def _files(client: AdminClient) -> tuple[list[Doc], Mapping[int, str]]:
    from gpustack.cli.lookup import FILES, WORKERS

    names = {int(worker["id"]): str(worker["name"]) for worker in await client.all(WORKERS)}
    return await client.all(FILES), names


async def _remove(client: AdminClient, ids: Sequence[str], cleanup: bool) -> list[str]:
    from gpustack.cli.lookup import FILES

    for one in ids:
        await client.get(f"{FILES}/{one}")
    told = [await client.delete(f"{FILES}/{one}?cleanup={str(cleanup).lower()}") for one in ids]
    return [
        str((answer or {}).get("message") or f"{one} is removed")
        for one, answer in zip(ids, told, strict=True)
    ]


def _row(file: Doc, names: Mapping[int, str], now: datetime) -> Row:
    state = str(file["state"])
    return Row(
        [
            str(file["id"]),
            phrase.source(file),
            names.get(file["worker_id"], str(file["worker_id"])),
            Cell(phrase.with_progress(state, file), phrase.state_style(state)),
            phrase.size(file.get("size")),
            phrase.age(file.get("created_at"), now),
        ],
        remark=phrase.one_line(file.get("state_message")) if state == "error" else "",
    )

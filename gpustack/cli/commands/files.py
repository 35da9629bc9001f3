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
from typing import TYPE_CHECKING, Any

from gpustack.cli import output, phrase
from gpustack.cli.misuse import UsageError
from gpustack.cli.session import open_session
from gpustack.cli.table import Cell, Row, draw
from gpustack.cli.terminal import Terminal, stderr, stdout
from gpustack.cli.usage import read

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

Doc = dict[str, Any]

_HEADS = ("ID", "SOURCE", "WORKER", "STATE", "SIZE", "AGE")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each source on each worker, or what has been removed."""
    words = read(__doc__, "files", argv)
    if words.flag("rm"):
        ids = words.many("ID")
        if wrong := [text for text in ids if not (text.isascii() and text.isdigit())]:
            raise UsageError(f"ID must be a number of gpustack files, not {wrong[0]!r}", words.usage)
        cleanup = not words.flag("--keep")
        for sentence in open_session(env).run(lambda client: _remove(client, ids, cleanup)):
            print(sentence)
        return 0
    files, names = open_session(env).run(_files)
    if not files:
        stderr(env).say("No worker has model files yet; gpustack pull SOURCE fetches some.")
    output.show(words, files, lambda: _table(files, names, datetime.now(UTC), stdout(env)), name="id")
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


def _table(files: list[Doc], names: Mapping[int, str], now: datetime, terminal: Terminal) -> str:
    return draw(_HEADS, [_row(file, names, now) for file in files], terminal) if files else ""


def _row(file: Doc, names: Mapping[int, str], now: datetime) -> Row:
    state, done = str(file["state"]), file.get("download_progress")
    shown = f"{state} {done:.0f}%" if state == "downloading" and done is not None else state
    return Row(
        [
            str(file["id"]),
            phrase.source(file),
            names.get(file["worker_id"], str(file["worker_id"])),
            Cell(shown, phrase.state_style(state)),
            phrase.size(file.get("size")),
            phrase.age(file.get("created_at"), now),
        ],
        remark=phrase.one_line(file.get("state_message")) if state == "error" else "",
    )

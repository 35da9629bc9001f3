"""List the model files on workers, and remove those that no instance uses.

Usage:
  gpustack files [options]
  gpustack files rm [options] ID...
  gpustack files pin [options] ID...
  gpustack files unpin [options] ID...
  gpustack files evict [options]

rm removes what was fetched, with its record. Files at a local path were there before, and are always kept. evict
removes all that no instance uses, the longest unused first; what is pinned stays.

Options:
  --keep             rm: remove only the record; the files stay.
  --worker=WORKER    evict: only on this worker (default: on all).
  --free=GIB         evict: only as much as frees so many GiB on a worker.
  --dry-run          Only tell what would be changed; evict tells what would go.
  -o, --output=FORM  table, wide, json or yaml (default: table).
  -q, --quiet        Numbers only.
  -h, --help         Show this help.
"""

from __future__ import annotations

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

_HEADS = ("ID", "SOURCE", "WORKER", "STATE", "SIZE", "FROM", "AGE")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each source on each worker, or what has been removed."""
    command_line = read(__doc__, "files", argv)
    if command_line.flag("rm"):
        ids = _ids(command_line)
        cleanup = not command_line.flag("--keep")
        for sentence in open_session(env).run(lambda client: _remove(client, ids, cleanup)):
            print(sentence)
        return 0
    if command_line.flag("pin") or command_line.flag("unpin"):
        ids, pinned = _ids(command_line), command_line.flag("pin")
        open_session(env).run(lambda client: _pin(client, ids, pinned=pinned))
        return 0
    if command_line.flag("evict"):
        return _evict(command_line, env)
    files, names = open_session(env).run(_files)
    row = partial(_row, names=names, now=datetime.now(UTC))
    empty = "No worker has model files yet; gpustack pull SOURCE fetches some."
    output.show_list(command_line, files, _HEADS, row, env, name="id", empty=empty)
    return 0


def _ids(command_line: CommandLine) -> Sequence[str]:
    ids = command_line.many("ID")
    if wrong := [text for text in ids if not (text.isascii() and text.isdigit())]:
        raise command_line.error(f"ID must be a number of gpustack files, not {wrong[0]!r}")
    return ids


async def _pin(client: AdminClient, ids: Sequence[str], *, pinned: bool) -> None:
    from gpustack.cli.lookup import FILES

    for one in ids:
        await client.update(f"{FILES}/{one}", {"pinned": pinned})


def _evict(command_line: CommandLine, env: Mapping[str, str]) -> int:
    from gpustack.domain.unit import GIB

    wanted, dry_run = command_line.whole("--free", least=1), command_line.flag("--dry-run")
    asked = {"bytes": None if wanted is None else wanted * GIB, "dry_run": dry_run}
    worker = command_line.text("--worker")
    for sentence in open_session(env).run(lambda client: _evict_all(client, worker, asked)):
        print(sentence)
    return 0


async def _evict_all(client: AdminClient, worker: str | None, asked: Doc) -> list[str]:
    from gpustack.cli.lookup import FILES, WORKERS, workers_named

    workers = await client.all(WORKERS) if worker is None else await workers_named(client, [worker])
    said = []
    for one in workers:
        told = await client.create(f"{FILES}/evict", {"worker_id": one["id"], **asked})
        verb = "would go" if asked["dry_run"] else "goes"
        for file in told["items"]:
            said.append(f"{one['name']}: {file['source']} ({phrase.size(file.get('size'))}) {verb}")
        rest = f" ({told['kept']})" if told["kept"] else ""
        said.append(f"{one['name']}: {phrase.size(told['freed'])} freed{rest}")
    return said


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
            Cell(_state(state, file), phrase.state_style(state)),
            phrase.size(file.get("size")),
            str(file.get("fetched_from") or "-"),
            phrase.age(file.get("created_at"), now),
        ],
        remark=phrase.one_line(file.get("state_message")),
    )


def _state(state: str, file: Doc) -> str:
    """The state, with progress, speed and what is left while it is fetched."""
    shown = phrase.with_progress(state, file)
    if file.get("download_speed") and state == "downloading":
        shown += f", {phrase.size(file['download_speed'])}/s"
    if file.get("download_eta") is not None:
        shown += f", {phrase.span(file['download_eta'])} left"
    return f"{shown}, pinned" if file.get("pinned") else shown

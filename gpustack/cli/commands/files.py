"""List model files on workers, copy them to others, and remove what no instance uses.

Usage:
  gpustack files [options]
  gpustack files ls [options]
  gpustack files copy [options] ID WORKER...
  gpustack files rm [options] ID...
  gpustack files pin [options] ID...
  gpustack files unpin [options] ID...
  gpustack files evict [options]

copy has other workers fetch the same: from workers that have it, and what none has from its source. It waits for them.
rm removes what was fetched, with its record. Files at a local path were there before, and are always kept. evict
removes all that no instance uses, the longest unused first; what is pinned stays.

Options:
  --keep             rm: remove only the record; the files stay.
  --worker=WORKER    ls, evict: only on this worker (default: on all).
  --free=GIB         evict: only as much as frees so many GiB on a worker.
  --dry-run          Only tell what would be changed; evict tells what would go.
  -d, --detach       copy: do not wait; the workers go on by themselves.
  --timeout=SECONDS  copy: give up waiting after so long, with exit code 124 (default: 0, without end).
  -w, --watch        ls: go on, and show what changes.
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
from gpustack.cli.columns import Column
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, ServerSession, open_session
from gpustack.cli.terminal import stderr

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("ID", "SOURCE", "WORKER", "STATE", "SIZE", "FROM", Column("AGE", ticks=True))
_SOURCE = (
    "source",
    "huggingface_repo_id",
    "huggingface_filename",
    "model_scope_model_id",
    "model_scope_file_path",
    "ollama_library_model_name",
    "revision",
)
"""The fields that say what a file is."""


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each source on each worker, or what has been removed."""
    command_line = read(__doc__, "files", argv)
    if command_line.flag("rm"):
        ids = _ids(command_line)
        cleanup = not command_line.flag("--keep")
        for sentence in open_session(env).run(lambda client: _remove(client, ids, cleanup)):
            print(output.for_stdout(sentence))
        return 0
    if command_line.flag("pin") or command_line.flag("unpin"):
        ids, pinned = _ids(command_line), command_line.flag("pin")
        open_session(env).run(lambda client: _pin(client, ids, pinned=pinned))
        return 0
    if command_line.flag("evict"):
        return _evict(command_line, env)
    if command_line.flag("copy"):
        return _copy(command_line, env)
    session, worker = open_session(env), command_line.text("--worker")
    files, names = session.run(lambda client: _files(client, worker))
    if command_line.flag("--watch"):
        return _watch(command_line, session, worker, names, env)
    row = partial(_row, names=names, now=datetime.now(UTC))
    empty = "No worker has model files yet; gpustack pull SOURCE fetches some."
    output.show_list(command_line, files, _HEADS, row, env, name="id", empty=empty)
    return 0


def _watch(
    command_line: CommandLine,
    session: ServerSession,
    worker: str | None,
    names: Mapping[int, str],
    env: Mapping[str, str],
) -> int:
    from gpustack.cli.lookup import FILES
    from gpustack.cli.watching import ListView, streamed, watch_list

    ids = {} if worker is None else {"worker_id": next(iter(names))}
    view = ListView(heads=_HEADS, row=lambda file: _row(file, names, datetime.now(UTC)), name="id")
    return watch_list(command_line, session, streamed(FILES, **ids), view, env)


def _copy(command_line: CommandLine, env: Mapping[str, str]) -> int:
    from gpustack.cli.fetching import follow

    [one] = _ids(command_line)
    session, limit = open_session(env), command_line.whole("--timeout") or float("inf")
    names = command_line.many("WORKER")
    files = session.run(lambda client: _ask_for_copies(client, one, names))
    if not command_line.flag("--detach"):
        follow(session, files, stderr(env), limit)
    return 0


async def _ask_for_copies(client: AdminClient, one: str, names: Sequence[str]) -> list[Doc]:
    """Ask workers to fetch what a file is; returns the records of theirs. Raises Conflict for what cannot be copied."""
    from gpustack.cli import fetching
    from gpustack.cli.lookup import FILES, workers_named
    from gpustack.errors import Conflict

    file = await client.get(f"{FILES}/{one}")
    if file.get("source") == "local_path":
        raise Conflict(
            f"{file.get('local_path')} is a path: what lies there is not ours to copy. Put it at the same path of the "
            "other machines"
        )
    workers = await workers_named(client, names)
    if same := [str(worker["name"]) for worker in workers if worker["id"] == file["worker_id"]]:
        raise Conflict(f"File {one} is that of {same[0]}")
    source = {name: file[name] for name in _SOURCE if file.get(name)}
    return await fetching.ask(client, source, workers, "")


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
        print(output.for_stdout(sentence))
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


async def _files(client: AdminClient, worker: str | None) -> tuple[list[Doc], Mapping[int, str]]:
    """Them, and the names of their workers."""
    from gpustack.cli.lookup import FILES, WORKERS, workers_named

    workers = await client.all(WORKERS) if worker is None else await workers_named(client, [worker])
    names = {int(one["id"]): str(one["name"]) for one in workers}
    of = {} if worker is None else {"worker_id": next(iter(names))}
    return await client.all(FILES, **of), names


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
            str(file.get("fetched_from") or "-"),
            phrase.age(file.get("created_at"), now),
        ],
        remark="; ".join(filter(None, (_fetching(state, file), phrase.one_line(file.get("state_message"))))),
    )


def _fetching(state: str, file: Doc) -> str:
    """While it is fetched how fast that is and what is left, and whether it is pinned."""
    parts = ["pinned"] if file.get("pinned") else []
    if file.get("download_speed") and state == "downloading":
        parts.append(f"{phrase.size(int(file['download_speed']))}/s")
    if file.get("download_eta") is not None:
        parts.append(f"{phrase.span(file['download_eta'])} left")
    return ", ".join(parts)

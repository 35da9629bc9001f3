"""Fetch the files of a model to workers ahead of need.

Usage:
  gpustack pull [options] [--worker WORKER]... SOURCE

SOURCE is a repository of Hugging Face (ORGANISATION/REPOSITORY[:TAG or :FILE]) or of ModelScope
(ms:ORGANISATION/REPOSITORY), or a model of the Ollama library (ollama:NAME:TAG), as gpustack run takes it: a
deployment of the same then starts at once. gpustack files lists what there is.

Options:
  --worker=WORKER    Only to this worker; may be repeated (default: to all that are ready).
  --local-dir=DIR    Into this folder of the worker, and not where deployments look.
  -d, --detach       Do not wait: the workers go on by themselves.
  --timeout=SECONDS  Give up waiting after so long, with exit code 124; the workers go on (default: 0, without end).
  --dry-run          Only tell what would be changed.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpustack.cli.command_line import read
from gpustack.cli.failure import WaitTimeout
from gpustack.cli.session import Doc, open_session
from gpustack.cli.source import read_source
from gpustack.cli.terminal import Terminal, stderr
from gpustack.errors import AlreadyExists, GpustackError, NotFound, Unavailable

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_LOOK_EVERY = 1.0


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Ask the workers, and follow them until all have the files."""
    command_line = read(__doc__, "pull", argv)
    aside, limit = stderr(env), command_line.whole("--timeout") or float("inf")
    text, names, folder = (
        command_line.required("SOURCE"),
        command_line.many("--worker"),
        command_line.text("--local-dir") or "",
    )
    session = open_session(env)
    files = session.run(lambda client: _ask(client, text, names, folder, aside))
    if command_line.flag("--detach"):
        return 0
    try:
        session.run(lambda client: _follow(client, files, aside, limit))
    except (KeyboardInterrupt, WaitTimeout):
        aside.clear()
        aside.say("The workers go on fetching; gpustack files shows how far they are.")
        raise
    return 0


async def _ask(
    client: AdminClient, text: str, names: Sequence[str], folder: str, aside: Terminal
) -> list[Doc]:
    """Ask the workers to fetch; returns the records of the files, one a worker, with the worker's name."""
    from gpustack.cli.lookup import FILES
    from gpustack.cli.repository import source_fields

    asked = read_source(text, Path.cwd())
    if asked is None:
        raise NotFound(f"{text} names nothing that can be fetched: write ORGANISATION/REPOSITORY[:TAG]")
    if "local_path" in asked.fields:
        raise GpustackError(f"{asked.fields['local_path']} is a path: what lies there need not be fetched")
    workers = await _workers(client, names)
    source, remark = await source_fields(client, asked)
    if remark:
        aside.say(remark)
    found = []
    for worker in workers:
        where = {"worker_id": worker["id"], "local_dir": folder}
        try:
            file = await client.create(FILES, {**source, **where})
        except AlreadyExists:
            file = await _there_already(client, source, where)
        found.append({**file, "worker_name": worker["name"]})
    return found


async def _workers(client: AdminClient, names: Sequence[str]) -> list[Doc]:
    from gpustack.cli.lookup import WORKERS, workers_named

    if names:
        return await workers_named(client, names)
    ready = [worker for worker in await client.all(WORKERS) if worker.get("state") == "ready"]
    if not ready:
        raise Unavailable("No worker is ready to fetch anything; gpustack workers shows why")
    return ready


async def _there_already(client: AdminClient, source: Mapping[str, str], where: Doc) -> Doc:
    """The record of the same file on that worker; a failed one is started again."""
    from gpustack.cli.lookup import FILES

    wanted = {**source, **where}
    for file in await client.all(FILES, worker_id=where["worker_id"]):
        if all((file.get(name) or "") == value for name, value in wanted.items()):
            return (
                await client.create(f"{FILES}/{file['id']}/reset", {}) if file["state"] == "error" else file
            )
    raise Unavailable("The file was removed at this moment: try again")


async def _follow(client: AdminClient, files: list[Doc], aside: Terminal, limit: float) -> None:
    import trio

    with trio.move_on_after(limit):
        left = {file["id"]: file for file in files}
        failed: list[str] = []
        while left:
            for key, before in list(left.items()):
                file = await _look(client, before)
                left[key] = file
                if file["state"] == "ready":
                    _say_ready(left.pop(key), aside)
                elif file["state"] == "error":
                    failed.append(f"{file['worker_name']}: {left.pop(key).get('state_message')}")
            if left:
                aside.draw(", ".join(map(_progress, left.values()))[: aside.width - 1])
                await trio.sleep(_LOOK_EVERY)
        aside.clear()
        if failed:
            raise Unavailable("; ".join(failed))
        return
    raise WaitTimeout(f"Not all files were there within {limit:.0f} s (--timeout)")


async def _look(client: AdminClient, before: Doc) -> Doc:
    from gpustack.cli.lookup import FILES

    try:
        now = await client.get(f"{FILES}/{before['id']}")
    except NotFound:
        return {**before, "state": "error", "state_message": "its record was removed meanwhile"}
    return {**now, "worker_name": before["worker_name"]}


def _progress(file: Doc) -> str:
    return f"{file['worker_name']} {file.get('download_progress') or 0:.0f} %"


def _say_ready(file: Doc, aside: Terminal) -> None:
    from gpustack.cli import phrase

    aside.say(f"{file['worker_name']} has it ({phrase.size(file.get('size'))})")
    for path in file.get("resolved_paths") or ():
        print(path)

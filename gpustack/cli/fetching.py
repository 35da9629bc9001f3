"""Workers that fetch model files: asked to, and followed until all of them have what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from gpustack.cli import phrase
from gpustack.cli.failure import WaitTimeout
from gpustack.cli.lookup import FILES
from gpustack.cli.output import for_stdout
from gpustack.cli.progress import bar
from gpustack.cli.session import Doc, ServerSession
from gpustack.cli.terminal import Terminal
from gpustack.errors import AlreadyExists, NotFound, Unavailable
from gpustack.remote.admin_client import AdminClient

_LOOK_EVERY = 1.0
GOES_ON = "The workers go on fetching; gpustack files shows how far they are."


async def ask(
    client: AdminClient, source: Mapping[str, str], workers: Sequence[Doc], folder: str
) -> list[Doc]:
    """Ask workers to fetch ``source`` into ``folder`` (empty: where deployments look). Returns their records,
    one a worker with its name; one that failed before is started again."""
    found = []
    for worker in workers:
        where = {"worker_id": worker["id"], "local_dir": folder}
        try:
            file = await client.create(FILES, {**source, **where})
        except AlreadyExists:
            file = await _there_already(client, source, where)
        found.append({**file, "worker_name": worker["name"]})
    return found


async def _there_already(client: AdminClient, source: Mapping[str, str], where: Doc) -> Doc:
    """The record of the same file on that worker; a failed one is started again."""
    wanted = {**source, **where}
    for file in await client.all(FILES, worker_id=where["worker_id"]):
        if all((file.get(name) or "") == value for name, value in wanted.items()):
            return (
                await client.create(f"{FILES}/{file['id']}/reset", {}) if file["state"] == "error" else file
            )
    raise Unavailable("The file was removed at this moment: try again")


def follow(session: ServerSession, files: Sequence[Doc], aside: Terminal, limit: float) -> None:
    """Show how far workers are until all have the files, whose paths go to stdout.

    ``limit`` is in seconds. Raises WaitTimeout after it, Unavailable where a worker failed; Ctrl-C raises
    KeyboardInterrupt. Workers go on after any of these.
    """
    try:
        session.run(lambda client: _follow(client, files, aside, limit))
    except (KeyboardInterrupt, WaitTimeout):
        aside.clear()
        aside.say(GOES_ON)
        raise


async def _follow(client: AdminClient, files: Sequence[Doc], aside: Terminal, limit: float) -> None:
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
                aside.draw(progress(list(left.values()), utf8=aside.utf8)[: aside.width - 1])
                await trio.sleep(_LOOK_EVERY)
        aside.clear()
        if failed:
            raise Unavailable("; ".join(failed))
        return
    raise WaitTimeout(f"Not all files were there within {limit:.0f} s (--timeout)")


async def _look(client: AdminClient, before: Doc) -> Doc:
    try:
        now = await client.get(f"{FILES}/{before['id']}")
    except NotFound:
        return {**before, "state": "error", "state_message": "its record was removed meanwhile"}
    return {**now, "worker_name": before["worker_name"]}


def progress(files: Sequence[Doc], *, utf8: bool = True) -> str:
    """One line: a bar of all together with the time that is left for the last, then the workers."""
    done = sum(file.get("download_progress") or 0 for file in files) / len(files)
    speed = sum(file.get("download_speed") or 0 for file in files)
    times = [file["download_eta"] for file in files if file.get("download_eta") is not None]
    parts = [f"{bar(done, utf8=utf8)} {done:3.0f} %"]
    if speed:
        parts.append(f"{phrase.size(int(speed))}/s")
    if times:
        parts.append(f"{phrase.clock(max(times))} left")
    return f"{', '.join(parts)}  {', '.join(str(file['worker_name']) for file in files)}"


def _say_ready(file: Doc, aside: Terminal) -> None:
    of = f", from {file['fetched_from']}" if file.get("fetched_from") else ""
    aside.say(f"{file['worker_name']} has it ({phrase.size(file.get('size'))}{of})")
    for path in file.get("resolved_paths") or ():
        print(for_stdout(str(path)))

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
from gpustack.cli.session import Doc, open_session
from gpustack.cli.source import read_source
from gpustack.cli.terminal import Terminal, stderr
from gpustack.errors import GpustackError, NotFound, Unavailable

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient


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
    from gpustack.cli.fetching import follow

    follow(session, files, aside, limit)
    return 0


async def _ask(
    client: AdminClient, text: str, names: Sequence[str], folder: str, aside: Terminal
) -> list[Doc]:
    """Ask the workers to fetch; returns the records of the files, one a worker, with the worker's name."""
    from gpustack.cli import fetching
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
    return await fetching.ask(client, source, workers, folder)


async def _workers(client: AdminClient, names: Sequence[str]) -> list[Doc]:
    from gpustack.cli.lookup import WORKERS, workers_named

    if names:
        return await workers_named(client, names)
    ready = [worker for worker in await client.all(WORKERS) if worker.get("state") == "ready"]
    if not ready:
        raise Unavailable("No worker is ready to fetch anything; gpustack workers shows why")
    return ready

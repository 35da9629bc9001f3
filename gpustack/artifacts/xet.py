"""Fetches a file that the hub keeps in Xet, with the hub's own client in a child process, so that it can be stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import trio

from gpustack.artifacts.disk import disk
from gpustack.artifacts.listing import RemoteFile
from gpustack.artifacts.xet_child import PLAIN
from gpustack.config.proxy import environment_of_others
from gpustack.nursery.process import module_command
from gpustack.remote.proxy_transport import proxies_of_environment
from gpustack.text import printable, redacted

_LOOK_EVERY = 0.5
_STALL = 120.0
"""Seconds without progress after which the child is ended."""
_KILL_WITHIN = 2.0
_STDERR_KEPT = 64 << 10


async def fetch_by_xet(
    file: RemoteFile, path: Path, *, endpoint: str, cache: Path, on_progress: Callable[[int], None]
) -> str | None:
    """Write ``file`` to ``path``, unverified. Returns ``None`` on success, else why it failed: then fetch it plainly.

    ``cache`` is a folder for the client's own files. Cancellable at any time; the child is ended then, and the caller
    removes ``path``. Raises OSError.
    """
    asked = {
        "url": file.url,
        "endpoint": endpoint,
        "headers": dict(file.headers),
        "size": file.size,
        "path": str(path),
    }
    await disk.run(lambda: path.parent.mkdir(parents=True, exist_ok=True))
    routes = proxies_of_environment()
    parts = urlsplit(file.url)
    proxy = routes.route(parts.scheme, parts.hostname or "", parts.port)
    if proxy is not None and proxy.fault is not None:
        return proxy.fault
    given = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_XET"}
    env = environment_of_others(routes, given)
    env |= {"HF_XET_CACHE": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    process = await trio.lowlevel.open_process(
        module_command("gpustack.artifacts.xet_child"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=True,
    )
    said = bytearray()
    stalled = True
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_stderr, process, said)
            nursery.start_soon(_send, process, json.dumps(asked).encode())
            nursery.start_soon(_watch_progress, path, on_progress, nursery.cancel_scope)
            await process.wait()
            stalled = False
            nursery.cancel_scope.cancel()
    finally:
        await _kill(process)
    if stalled:
        return f"nothing came for {_STALL:g} s"
    if process.returncode == 0:
        return None
    if process.returncode == PLAIN:
        return "the hub does not keep it in Xet"
    last = said.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
    return printable(redacted(last[0]), 200)


def host_of(url: str) -> str:
    """Scheme and host of ``url``."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


async def _send(process: trio.Process, question: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(trio.BrokenResourceError):
        async with process.stdin:
            await process.stdin.send_all(question)


async def _read_stderr(process: trio.Process, said: bytearray) -> None:
    """Read stderr to its end, so that the child never blocks on a full pipe; keep the last bytes in ``said``."""
    assert process.stderr is not None
    async for piece in process.stderr:
        said += piece
        del said[:-_STDERR_KEPT]


async def _watch_progress(
    path: Path, on_progress: Callable[[int], None], everything: trio.CancelScope
) -> None:
    seen, since = -1, trio.current_time()
    while True:
        here = await disk.run(_bytes_of, path)
        if here != seen:
            seen, since = here, trio.current_time()
            on_progress(here)
        elif trio.current_time() - since > _STALL:
            everything.cancel()
        await trio.sleep(_LOOK_EVERY)


def _bytes_of(path: Path) -> int:
    """The bytes on disk: the file is sparse and has its full length from the beginning."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return min(status.st_size, status.st_blocks * 512)


async def _kill(process: trio.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _KILL_WITHIN):
        for stream in (process.stdin, process.stderr):
            if stream is not None:
                await stream.aclose()
        await process.wait()

"""Which ``ray`` is run: the one beside vLLM, for all machines and vLLM itself need the same version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import attrs
import trio

from gpustack.nursery.limiter import threads

ABSENT = (
    "There is no program ray: install Ray beside vLLM (pip install 'ray[default]' in the environment of vLLM), or put "
    "it on the PATH of gpustack"
)
_VERSION = re.compile(r"version (\S+)")
_ANSWERS_WITHIN = 60.0
_threads = threads("ray versions", 1)


@attrs.frozen
class RayProgram:
    """An installed ``ray``. ``version`` is ``None`` where it does not say."""

    path: str
    version: str | None
    written: int | None = None
    """When the file was written, in ns: an installer writes it anew."""


def find(beside: Iterable[str | None], path: str | None) -> str | None:
    """The ``ray`` in the folder of one of the programs ``beside``, else on ``path`` (as ``PATH``); ``None`` if there is
    none. Blocks."""
    for program in beside:
        if program is None:
            continue
        found = Path(program).parent / "ray"
        if found.is_file() and os.access(found, os.X_OK):
            return str(found)
    return shutil.which("ray", path=path)


async def ask_version(
    path: str, environment: Mapping[str, str], known: RayProgram | None = None
) -> RayProgram:
    """The program with the version that it names; it gets 60 s. Cancelled, it is ended within these.

    Costs some seconds of a processor: ``known`` is returned where it is of the same file.
    """
    written = await _threads.run(_written, path)
    if known is not None and (known.path, known.written) == (path, written) and known.version is not None:
        return known
    output = await _threads.run(partial(_asked, path, dict(environment)))
    found = _VERSION.search(output)
    return RayProgram(path, found[1] if found else None, written)


def _written(path: str) -> int | None:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return None


def _asked(path: str, environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            [path, "--version"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_ANSWERS_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout[:4096].decode("utf-8", "replace")


def other_version(ours: str | None, heads: str | None) -> str | None:
    """Why a node of version ``ours`` does not fit a head of version ``heads``; ``None`` if it does, or may."""
    if ours is None or heads is None or ours == heads:
        return None
    return (
        f"Ray {ours} here does not fit Ray {heads} of the head: install the same version on all machines, beside the "
        "same version of vLLM"
    )


async def reaches(host: str, port: int, within: float) -> bool:
    """Whether somebody listens there and can be reached. Cancellable."""
    with trio.move_on_after(within):
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError:
            return False
        await stream.aclose()
        return True
    return False

"""Clears what engines that were killed leave in shared memory, and nothing that somebody still uses."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import trio

from gpustack.nursery.limiter import threads

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
PROCESSES = Path("/proc")
_SEGMENT = re.compile(r"psm_[0-9a-f]{8}")
"""As Python's ``multiprocessing.shared_memory`` names them: without a process id, so that only a look at who has it
mapped tells whose it is. vLLM's messages between its processes go through them. ``sem.mp-*`` beside them belong to
every program that uses ``multiprocessing``, and are a page each: they stay."""
_LEAST_AGE = 60.0
"""Seconds. Between making a segment and mapping it, nobody has it mapped."""
_WITHIN = 10.0
_threads = threads("leftovers", 1)


async def clear_leftovers(now: float) -> int:
    """Remove the segments of this user that no process has mapped; how many they were. ``now`` is as ``time.time``.

    To be called when the engines of a gang have ended: the process that would have removed them was killed with them.
    Should somebody have one mapped whom we cannot see (in a container beside ours), it keeps what it has.
    Raises nothing. Not cancellable, but short.
    """
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _WITHIN):
        return await _threads.run(clear, now)
    return 0


def clear(now: float, memory: Path = SHARED_MEMORY, processes: Path = PROCESSES) -> int:
    """As ``clear_leftovers``. Blocking."""
    found = _segments(now, memory)
    if not found or (mapped := _mapped(memory, processes)) is None:
        return 0
    removed = 0
    for path in found - mapped:
        try:
            path.unlink()
            removed += 1
        except OSError as error:
            log.info("Cannot remove what an engine left: file=%s reason=%s", path.name, error.strerror)
    if removed:
        log.info("Removed what killed engines left in shared memory: segments=%d", removed)
    return removed


def _segments(now: float, memory: Path) -> set[Path]:
    """Those of our user that are old enough."""
    found = set()
    try:
        entries = list(os.scandir(memory))
    except OSError:
        return set()
    for entry in entries:
        try:
            seen = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        is_ours = seen.st_uid == os.geteuid() and now - seen.st_mtime >= _LEAST_AGE
        if is_ours and entry.is_file(follow_symlinks=False) and _SEGMENT.fullmatch(entry.name):
            found.add(memory / entry.name)
    return found


def _mapped(memory: Path, processes: Path) -> set[Path] | None:
    """The files of ``memory`` that some process has mapped or open; ``None`` where that cannot be told."""
    found: set[Path] = set()
    prefix = f"{memory}/"
    for process in processes.iterdir():
        if not process.name.isdigit():
            continue
        try:
            maps = (process / "maps").read_text(errors="replace")
            found |= {Path(target) for target in _open_files(process) if target.startswith(prefix)}
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is none of our engines, which we may look at
        except OSError:
            return None
        for line in maps.splitlines():
            at = line.find(prefix)
            if at >= 0:
                found.add(Path(line[at:].removesuffix(" (deleted)")))
    return found


def _open_files(process: Path) -> list[str]:
    found = []
    for link in (process / "fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue  # closed meanwhile
    return found

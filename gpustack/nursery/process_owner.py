"""Tells which of the groups of processes that we started a process belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from .process_identity import read_stat

_INITIAL_NAMESPACE = 0xEFFFFFFC
"""The inode of the first PID namespace of every machine (Linux, ``include/linux/proc_ns.h``: ``PROC_PID_INIT_INO``)."""
_MOST_ANCESTORS = 64


def sees_all_pids(root: Path = Path("/")) -> bool:
    """Whether a driver's pids are ours too: not so in a container with a PID namespace of its own, since drivers number
    processes as the machine does. Blocks."""
    try:
        return (root / "proc/self/ns/pid").stat().st_ino == _INITIAL_NAMESPACE
    except OSError:
        return False


def owners(pids: Iterable[int], leaders: Collection[int]) -> Mapping[int, int | None]:
    """Of each process that is there, the leader whose group, session or descendant it is, or ``None`` for none of
    these. Processes that have ended are left out. Blocks."""
    found: dict[int, int | None] = {}
    for pid in pids:
        if (stat := read_stat(pid)) is not None and not stat.dead:
            found[pid] = _owner(pid, leaders)
    return found


def _owner(pid: int, leaders: Collection[int]) -> int | None:
    for _ in range(_MOST_ANCESTORS):
        stat = read_stat(pid) if pid > 1 else None
        if stat is None:
            return None
        for number in (stat.pid, stat.group, stat.session):
            if number in leaders:
                return number
        pid = stat.parent
    return None

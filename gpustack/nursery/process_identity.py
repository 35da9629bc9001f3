"""Which process is which, beyond its number: reads of Linux's /proc."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

_PROC = Path("/proc")


@attrs.frozen
class ProcessIdentity:
    """Names one process for ever: numbers are reused, but not within one boot at one start time."""

    boot_id: str
    start_ticks: int


@attrs.frozen
class ProcessStat:
    """The parts of ``/proc/PID/stat`` that tell to whom a process belongs."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start_ticks: int

    @property
    def dead(self) -> bool:
        """Whether it has ended, and waits at most for its parent to notice."""
        return self.state in "ZXx"


def boot_id() -> str | None:
    """Identifies this boot of this machine, or None where there is no such thing."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def read_stat(pid: int) -> ProcessStat | None:
    """What the system says about ``pid``, or None if there is no such process or no /proc."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return ProcessStat(pid, fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def identity(pid: int) -> ProcessIdentity | None:
    """The identity of the process that has the number ``pid`` now."""
    boot, found = boot_id(), read_stat(pid)
    return None if boot is None or found is None else ProcessIdentity(boot, found.start_ticks)


def members(group: int, since: int | None) -> list[int] | None:
    """The living processes of a group that leads its own session; None where that cannot be known.

    ``since`` is the start time of its leader. Should the number have passed to another process in the
    meantime, the answer is none: the kernel gives no number away while a group still bears it.
    """
    if since is None or not _PROC.joinpath("self/stat").exists():
        return None
    leader = read_stat(group)
    if leader is not None and leader.start_ticks != since:
        return []
    found = [read_stat(int(name)) for name in os.listdir(_PROC) if name.isdigit()]  # noqa: PTH208  10x faster
    return [
        one.pid
        for one in found
        if one and one.group == one.session == group and not one.dead and one.start_ticks >= since
    ]

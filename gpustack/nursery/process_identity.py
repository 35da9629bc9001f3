"""Identifies processes beyond their pid, from Linux's /proc."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

_PROC = Path("/proc")


@attrs.frozen
class ProcessIdentity:
    """Identifies one process for all time: a pid is reused, but never at the same start time of the same boot."""

    boot_id: str
    start_ticks: int


@attrs.frozen
class ProcessStat:
    """Fields of ``/proc/PID/stat``."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start_ticks: int

    @property
    def dead(self) -> bool:
        """Whether it has ended, and at most waits to be reaped."""
        return self.state in "ZXx"


def boot_id() -> str | None:
    """The id of the present boot of this machine, or None where the system has none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def read_stat(pid: int) -> ProcessStat | None:
    """The fields of ``pid``, or None if there is no such process or no /proc."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return ProcessStat(pid, fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def identity_of(pid: int) -> ProcessIdentity | None:
    """The identity of the process that has ``pid`` now; None if there is none or no /proc."""
    boot, found = boot_id(), read_stat(pid)
    return None if boot is None or found is None else ProcessIdentity(boot, found.start_ticks)


def members(group: int, since: int | None) -> list[int] | None:
    """The pids of the living processes of a group that has its own session; None where that cannot be known.

    ``since`` is the start time of its leader in ticks. Empty if the number now belongs to another process: the kernel
    does not reuse a number while a group has it.
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

"""Reaps orphans where the daemon is process 1 of a container, which every orphan of it becomes a child of."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import trio

from .limiter import threads
from .process import led
from .process_identity import read_stat

_EVERY = 5.0
_looks = threads("orphans", 1)


@attrs.define
class OrphanReaper:
    """A service. Nothing tells an orphan from a child of ours but that nobody waits for it: an ended child that was
    there already at the look before, and leads no group of ours, is reaped.
    """

    every: float = _EVERY
    """Seconds between two looks."""
    reaped: int = 0
    name: str = "orphans"
    _ended: frozenset[int] = frozenset()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await trio.sleep(self.every)
            found = await _looks.run(ended_children, os.getpid(), abandon=True) - led()
            for pid in found & self._ended:
                self.reaped += _reap(pid)
            self._ended = found


def ended_children(parent: int) -> frozenset[int]:
    """The children of a process that have ended and that nobody has waited for; none where there is no /proc."""
    numbers = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    stats = [read_stat(number) for number in numbers]
    return frozenset(stat.pid for stat in stats if stat is not None and stat.dead and stat.parent == parent)


def _reap(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # somebody did wait for it
        return False

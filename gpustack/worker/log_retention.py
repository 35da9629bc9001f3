"""Removes the logs of engines whose instances are gone, seven days after the last line was written."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path

import attrs
import trio

from gpustack.nursery.limiter import threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.worker.assignment_watcher import AssignmentWatcher

log = logging.getLogger(__name__)

KEEP = 7 * 86400.0
"""Seconds for which the logs of an instance can still be read on the machine after it has gone."""
_LOOK_EVERY = 3600.0
_NAME = re.compile(r"([1-9][0-9]{0,17})(?:-member-[0-9]+)?((\.[0-9]+|\.cut)?\.log|\.launch\.json)")
_threads = threads("old logs", 1)


@attrs.frozen(eq=False, kw_only=True)
class LogRetention:
    """A service: looks each hour, once the server has told which instances there are.

    ``folder`` belongs to this worker alone: logs in it that belong to no assigned instance are left from former ones.
    """

    folder: Path
    assignments: AssignmentWatcher
    now: Callable[[], datetime]
    keep: float = KEEP
    faults: Quarantine = attrs.field(factory=lambda: Quarantine("old-logs", clock=time.monotonic))
    name: str = "old-logs"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        revision = -1
        while True:
            revision, assigned = await self.assignments.latest.changed(revision)
            if not assigned.synced:
                continue
            before = self.now().timestamp() - self.keep
            living = assigned.state.instances.keys()
            removed = await _threads.run(sweep, self.folder, living, before, self.faults)
            if removed:
                log.info("Removed old logs of instances that are gone: files=%d", removed)
            await trio.sleep(_LOOK_EVERY)


def sweep(folder: Path, living: Collection[int], before: float, faults: Quarantine) -> int:
    """Remove the logs of instances that are not ``living`` and have written nothing since ``before`` (Unix time).

    Returns how many files. Blocking; nobody else may use ``faults`` meanwhile. Files that are not named as our logs are
    never touched; what cannot be removed is left.
    """
    found: dict[int, list[Path]] = {}
    try:
        paths = list(folder.iterdir())
    except OSError:
        return 0  # nothing was ever started here
    for path in paths:
        if (named := _NAME.fullmatch(path.name)) and int(named[1]) not in living:
            found.setdefault(int(named[1]), []).append(path)
    removed = 0
    faults.keep_only(found)
    for instance_id, logs in found.items():
        with faults.row(instance_id):
            removed += _removed(logs, before)
    return removed


def _removed(logs: list[Path], before: float) -> int:
    try:
        if max(path.lstat().st_mtime for path in logs) >= before:
            return 0
        for path in logs:
            path.unlink()
    except OSError as error:
        log.warning("Old logs cannot be removed: folder=%s reason=%s", logs[0].parent, error.strerror)
        return 0
    return len(logs)

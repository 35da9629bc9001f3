"""Makes room on this worker's disk by removing model files that nobody uses, where that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Container

import attrs

from gpustack.artifacts.cache import Cache
from gpustack.domain.artifact import ModelFile, ModelSource
from gpustack.domain.assignment import AssignmentState
from gpustack.domain.report import FileReport
from gpustack.domain.unit import human_bytes
from gpustack.errors import GpustackError
from gpustack.policy.model_file import evict
from gpustack.worker.report import ReportQueue

log = logging.getLogger(__name__)

_HOW = "let the worker remove unused files by itself (--evict-unused-files), or remove them with gpustack files evict"


@attrs.frozen
class RoomResult:
    """What became of it: ``removed`` says which files were removed and why, else ``failed`` why there is no room."""

    removed: str = ""
    failed: str = ""


@attrs.frozen(repr=False)
class FileEvictor:
    """Chooses by ``policy/model_file.py``, removes, and tells the server, which takes the records away."""

    _cache: Cache
    _reports: ReportQueue
    _wanted: bool
    """Whether files may be removed without being asked each time (--evict-unused-files)."""

    async def make_room(
        self, source: ModelSource, short: int, assigned: AssignmentState, needed: Container[str]
    ) -> RoomResult:
        """Free ``short`` bytes for ``source``; ``needed`` holds the indexes of sources that somebody waits for.

        Removes nothing unless it is enough. Cancellable: what was removed is told.
        """
        if not self._wanted:
            return RoomResult(failed=_HOW)
        files = [file for file in assigned.files.values() if file.source_index not in needed]
        plan = evict(files, tuple(assigned.instances.values()), assigned.models, needed=short)
        if not plan.files:
            return RoomResult(failed=f"--evict-unused-files removes nothing: {plan.kept}")
        done: list[str] = []
        for file in plan.files:
            try:
                await self._cache.remove(file.resolved_paths)
            except GpustackError as error:
                return RoomResult(failed=f"{file.source.readable} was to make room: {error}")
            done.append(_described(file))
            why = f"Removed to make room for {source.readable}, which needed {human_bytes(short)} more"
            log.warning("Removed a model file that nobody used: file=%s for=%s", done[-1], source.readable)
            self._reports.add_record(file.id, FileReport(evicted=why))
        return RoomResult(removed=f"Made room by removing {', '.join(done)}")

    def __repr__(self) -> str:
        return f"<FileEvictor: {'on' if self._wanted else 'off'}>"


def _described(file: ModelFile) -> str:
    used = "never used" if file.last_used_at is None else f"last used {file.last_used_at:%Y-%m-%d %H:%M} UTC"
    return f"{file.source.readable} ({human_bytes(file.size or 0)}, {used})"

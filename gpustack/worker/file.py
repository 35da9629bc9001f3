"""Model files on this machine: fetched when an instance or a user wants them, removed when nobody does."""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from gpustack.artifacts.cache import Cache, LocalFiles, Progress
from gpustack.domain.artifact import FileState, ModelFile, ModelSource
from gpustack.domain.report import FileReport
from gpustack.errors import GpustackError
from gpustack.worker.assignment import Assigned, Assignments
from gpustack.worker.reports import Reports

log = logging.getLogger(__name__)

_SAY_EVERY = 1.0


@attrs.define(eq=False, repr=False)
class Files:
    """Takes up what the server's records ask for, and gives instances their files."""

    _cache: Cache
    _assignments: Assignments
    _reports: Reports
    _busy: set[int] = attrs.field(factory=set)
    name: str = "files"

    async def ensure(
        self, source: ModelSource, local_dir: str = "", progress: Callable[[float], None] | None = None
    ) -> LocalFiles:
        """The files of ``source``, fetched if they are missing; the server's record of them follows.

        ``progress`` hears percent, about once a second. Raises a ``GpustackError`` whose sentence says what is wrong.
        Cancellable at any time: what has arrived stays and is gone on with next time.
        """
        said_at = -_SAY_EVERY

        def tell(now: Progress) -> None:
            nonlocal said_at
            if trio.current_time() - said_at < _SAY_EVERY:
                return
            said_at = trio.current_time()
            percent = now.percent
            if progress is not None and percent is not None:
                progress(percent)
            said = FileReport(state=FileState.DOWNLOADING, download_progress=percent, size=now.total)
            self._reports.file(source, local_dir, said)

        try:
            files = await self._cache.ensure(source, local_dir=local_dir or None, progress=tell)
        except GpustackError as error:
            self._reports.file(source, local_dir, FileReport(state=FileState.ERROR, state_message=str(error)))
            raise
        self._reports.file(
            source,
            local_dir,
            FileReport(
                state=FileState.READY,
                state_message="",
                size=files.size,
                download_progress=100.0,
                resolved_paths=tuple(str(path) for path in files.paths),
            ),
        )
        return files

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        revision = -1
        async with trio.open_nursery() as nursery:
            while True:
                revision, assigned = await self._assignments.latest.changed(revision)
                self._take_up(assigned, nursery)

    def _take_up(self, assigned: Assigned, nursery: trio.Nursery) -> None:
        for file in assigned.picture.files.values():
            if file.id in self._busy:
                continue
            if file.deleted_at is not None:
                self._begin(nursery, file, self._remove)
            elif file.state is FileState.DOWNLOADING:
                self._begin(nursery, file, self._fetch)

    def _begin(self, nursery: trio.Nursery, file: ModelFile, work: Callable[..., object]) -> None:
        self._busy.add(file.id)
        nursery.start_soon(self._guard, file, work, name=f"file:{file.source.readable}")

    async def _guard(self, file: ModelFile, work: Callable[[ModelFile], object]) -> None:
        try:
            await work(file)  # type: ignore[misc]  # one of the two coroutine functions below
        finally:
            self._busy.discard(file.id)

    async def _fetch(self, file: ModelFile) -> None:
        try:
            await self.ensure(file.source, file.local_dir)
        except GpustackError as error:
            log.warning("Could not fetch a model: source=%s reason=%s", file.source.readable, error)

    async def _remove(self, file: ModelFile) -> None:
        if file.cleanup_on_delete:
            await self._cache.remove(file.resolved_paths)
        self._reports.file_gone(file.id)
        log.info("Removed a model file: source=%s bytes_too=%s", file.source.readable, file.cleanup_on_delete)

    def __repr__(self) -> str:
        return f"<Files: {len(self._busy)} being fetched or removed>"

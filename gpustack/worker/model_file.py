"""Model files on this machine: fetched when an instance or a user wants them, removed when nobody does."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from gpustack.artifacts.disk import NoSpace
from gpustack.artifacts.peer import FilePeer
from gpustack.artifacts.repository import NO_EXTRAS, FileExtras
from gpustack.artifacts.source import DEFAULT_PROJECTOR
from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.report import FileReport
from gpustack.errors import GpustackError, Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.worker.assignment_watcher import AssignmentSnapshot, AssignmentWatcher
from gpustack.worker.eviction import FileEvictor
from gpustack.worker.report import ReportQueue

if TYPE_CHECKING:
    from gpustack.artifacts.cache import Cache, DownloadProgress, LocalFiles

log = logging.getLogger(__name__)

_REPORT_EVERY = 1.0
"""Seconds between two reports of progress."""
_SPEED_OVER = 10.0
"""Seconds over which the speed is measured."""
_Key = tuple[ModelSource, str]
FindPeers = Callable[[ModelSource, str], Awaitable[Sequence[FilePeer]]]


@attrs.define(eq=False)
class _FileTask:
    """The fetching or removing of one record's files."""

    file: ModelFile
    action: Callable[[ModelFile], Awaitable[None]]
    removes: bool
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.define(eq=False)
class _Speed:
    """Bytes a second over the last seconds of a fetch."""

    _seen: deque[tuple[float, int]] = attrs.field(factory=deque)

    def note(self, instant: float, done: int) -> None:
        """So many bytes are there now."""
        self._seen.append((instant, done))
        while len(self._seen) > 2 and self._seen[1][0] <= instant - _SPEED_OVER:
            self._seen.popleft()

    @property
    def now(self) -> float | None:
        """``None`` where nothing can be said yet."""
        (first, had), (last, has) = self._seen[0], self._seen[-1]
        return max(has - had, 0) / (last - first) if last > first else None


@attrs.define(eq=False, repr=False)
class ModelFiles:
    """A service: fetches and removes the files that the server's records ask for, and gives instances their files."""

    _cache: Cache
    _assignments: AssignmentWatcher
    _reports: ReportQueue
    _token: str | None = attrs.field(default=None, repr=False)
    """The model hub's token."""
    _find_peers: FindPeers | None = None
    """Asks which other workers have the files of a source (and folder), the best first."""
    _evictor: FileEvictor | None = None
    _now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _used: frozenset[str] | None = None
    """Indexes of the sources that instances here use; ``None`` before the assignments are known."""
    _tasks: dict[int, _FileTask] = attrs.field(factory=dict)
    _reported_at: dict[_Key, float] = attrs.field(factory=dict)
    _origins: dict[_Key, str] = attrs.field(factory=dict)
    """Where what is being fetched comes from."""
    _wanted: dict[_Key, int] = attrs.field(factory=dict)
    """How many wait for these files now."""
    _removing: dict[_Key, trio.Event] = attrs.field(factory=dict)
    _unremovable: set[int] = attrs.field(factory=set)
    """Records whose files could not be removed: not tried again before the next start."""
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("files"))
    _fetches: Quarantine = attrs.field(factory=lambda: Quarantine("fetching"))
    name: str = "files"

    async def ensure(
        self,
        source: ModelSource,
        local_dir: str = "",
        progress: Callable[[float], None] | None = None,
        *,
        projector: str | None = None,
        extras: FileExtras = NO_EXTRAS,
    ) -> LocalFiles:
        """The files of ``source``, fetched if they are missing; the server's record of them is kept up to date.

        ``progress`` is called with percent about once a second, and not at all when everything is here. Raises a
        ``GpustackError`` whose sentence says what is wrong. Cancellable at any time: what has arrived stays, and the
        next fetch continues from there. ``projector`` is the name of the projector's file, where the user chose one;
        ``extras`` is what is wanted of a repository beyond the usual.
        """
        pattern = DEFAULT_PROJECTOR if projector is None or "/" in projector else projector
        key = (source, local_dir)
        while (removing := self._removing.get(key)) is not None:
            await removing.wait()
        self._wanted[key] = self._wanted.get(key, 0) + 1
        refusal: GpustackError | None = None
        remark = ""
        try:
            with self._fetches.row((source.index, local_dir)) as attempt:
                fetch = partial(
                    self._cache.ensure,
                    source,
                    token=self._token,
                    local_dir=local_dir or None,
                    progress=self._progress_reporter(key, progress),
                    find_peers=None
                    if self._find_peers is None
                    else partial(self._find_peers, source, local_dir),
                    projector=pattern,
                    extras=extras,
                )
                try:
                    try:
                        files = await fetch()
                    except NoSpace as error:
                        remark = await self._make_room(key, error)
                        files = await fetch()
                except GpustackError as error:
                    refusal = error
            if attempt.fault is not None:
                refusal = Unavailable(f"{source.readable} cannot be fetched. {attempt.fault.sentence}")
            if refusal is not None:
                self._report_error(key, str(refusal))
                raise refusal
        finally:
            self._wanted[key] -= 1
            origin = self._origins.get(key)
            if not self._wanted[key]:
                del self._wanted[key]
                self._reported_at.pop(key, None)
                self._origins.pop(key, None)
        self._reports.add_file(
            source,
            local_dir,
            FileReport(
                state=FileState.READY,
                state_message=remark,
                size=files.size,
                download_progress=100.0,
                resolved_paths=files.paths,
                fetched_from=origin,
            ),
        )
        return files

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        revision = -1
        async with trio.open_nursery() as nursery:
            while True:
                with trio.move_on_after(self._faults.due_in()):
                    revision, _ = await self._assignments.latest.changed(revision)
                self._note_use(self._assignments.latest.value)
                self._start_tasks(self._assignments.latest.value, nursery)

    async def _make_room(self, key: _Key, fault: NoSpace) -> str:
        """Have files removed that nobody uses; returns which and why. Raises ``NoSpace`` where that is no way out."""
        source, local_dir = key
        if self._evictor is None or fault.short is None or local_dir:
            raise fault
        needed = {waited.index for waited, _ in self._wanted}
        assigned = self._assignments.latest.value.state
        result = await self._evictor.make_room(source, fault.short, assigned, needed)
        if result.failed:
            raise NoSpace(f"{fault}; {result.failed}") from fault
        self._reports.add_file(
            source, local_dir, FileReport(state=FileState.DOWNLOADING, state_message=result.removed)
        )
        return result.removed

    def _note_use(self, assigned: AssignmentSnapshot) -> None:
        """Tell of each record whose files an instance began or ceased to use: the longest unused are evicted first."""
        state = assigned.state
        if not assigned.synced:
            return
        sources = [instance.source for instance in state.instances.values()]
        sources += [adapter.source for model in state.models.values() for adapter in model.lora_adapters]
        used = frozenset(source.index for source in sources)
        changed = frozenset() if self._used is None else used ^ self._used
        self._used = used
        for file in state.files.values():
            if file.source_index in changed and not file.local_dir:
                self._reports.add_record(file.id, FileReport(last_used_at=self._now()))

    def _progress_reporter(
        self, key: _Key, progress: Callable[[float], None] | None
    ) -> Callable[[DownloadProgress], None]:
        """A callback for the cache. However many wait for the same files, their record is reported once a second."""
        source, local_dir = key
        told_at: float | None = None
        speed = _Speed()

        def tell(now: DownloadProgress) -> None:
            nonlocal told_at
            instant = trio.current_time()
            if now.done >= now.total and told_at is None:
                return  # everything was here already
            speed.note(instant, now.done)
            self._origins[key] = now.origin
            if told_at is None or instant - told_at >= _REPORT_EVERY:
                told_at = instant
                if progress is not None:
                    progress(now.percent)
            last = self._reported_at.get(key)
            if last is None or instant - last >= _REPORT_EVERY:
                self._reported_at[key] = instant
                report = FileReport(
                    state=FileState.DOWNLOADING,
                    download_progress=now.percent,
                    download_speed=speed.now,
                    size=now.total or None,
                    fetched_from=now.origin,
                )
                self._reports.add_file(source, local_dir, report)

        return tell

    # --- what the records ask for

    def _start_tasks(self, assigned: AssignmentSnapshot, nursery: trio.Nursery) -> None:
        files = assigned.state.files
        self._faults.keep_only({*files, *(("look", key) for key in files)})
        for file in files.values():
            if not self._faults.holds(file.id) and not self._faults.holds(("look", file.id)):
                with self._faults.row(("look", file.id)):
                    self._start_task(file, nursery)

    def _start_task(self, file: ModelFile, nursery: trio.Nursery) -> None:
        running, is_needed = self._tasks.get(file.id), _key(file) in self._wanted
        if running is not None:
            if file.deleted_at is not None and not running.removes:
                running.scope.cancel()  # compared again when it has ended
            return
        if file.deleted_at is not None and not is_needed and file.id not in self._unremovable:
            task = _FileTask(file, self._remove, removes=True)
        elif file.deleted_at is None and not is_needed and file.state is FileState.DOWNLOADING:
            task = _FileTask(file, self._fetch, removes=False)
        else:
            return
        self._tasks[file.id] = task
        nursery.start_soon(self._run_task, task, nursery, name=f"file:{file.source.readable}")

    async def _run_task(self, task: _FileTask, nursery: trio.Nursery) -> None:
        file = task.file
        try:
            with task.scope, self._faults.row(file.id) as attempt:
                await task.action(file)
            if attempt.fault is not None:
                self._report_error(_key(file), attempt.fault.sentence)
        finally:
            del self._tasks[file.id]
        if attempt.fault is not None:
            await trio.sleep(max(attempt.fault.again_at - trio.current_time(), 0.0))
        if attempt.fault is not None or task.scope.cancelled_caught:
            self._start_tasks(self._assignments.latest.value, nursery)

    async def _fetch(self, file: ModelFile) -> None:
        try:
            await self.ensure(file.source, file.local_dir)
        except GpustackError as error:
            log.warning("Could not fetch a model: source=%s reason=%s", file.source.readable, error)

    async def _remove(self, file: ModelFile) -> None:
        self._removing[_key(file)] = done = trio.Event()
        # The files at a local path were there before us and belong to somebody else.
        is_ours = file.source.kind is not SourceKind.LOCAL_PATH
        bytes_too = bool(is_ours and file.cleanup_on_delete)
        local_dir = file.local_dir or None
        try:
            if is_ours:
                await self._cache.drop_unfinished(file.source, local_dir=local_dir, whole=bytes_too)
            if bytes_too:
                await self._cache.remove(file.resolved_paths, local_dir=local_dir)
        except GpustackError as error:
            self._unremovable.add(file.id)
            log.error("Could not remove a model file: source=%s reason=%s", file.source.readable, error)
            self._report_error(_key(file), str(error))
            return
        finally:
            del self._removing[_key(file)]
            done.set()
        self._reports.add_record(file.id, FileReport(gone=True))
        log.info("Removed a model file: source=%s bytes_too=%s", file.source.readable, bytes_too)

    def _report_error(self, key: _Key, sentence: str) -> None:
        source, local_dir = key
        self._reports.add_file(source, local_dir, FileReport(state=FileState.ERROR, state_message=sentence))

    def __repr__(self) -> str:
        return f"<ModelFiles: {len(self._tasks)} being fetched or removed, {len(self._wanted)} waited for>"


def _key(file: ModelFile) -> _Key:
    return file.source, file.local_dir

"""Which workers can give another the files of a source, which files are in use, and which may be evicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.model import Model
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import Worker, WorkerState

from .gang import is_loopback

MOST_HOLDERS = 4
"""Workers that one is told of: who has none of them in reach asks the hub."""


def holders(
    file: ModelFile, files: Iterable[ModelFile], workers: Mapping[int, Worker]
) -> tuple[tuple[ModelFile, Worker], ...]:
    """The workers that can give ``file.worker_id`` the files of ``file``, each with its record, the best first.

    Those that have them all go first, in an order that differs from reader to reader. Then come those that are still
    fetching, of them only such as asked before this one: so no two wait for each other, and many that start together
    form a chain, of which the first alone asks the hub.
    """
    reader = workers.get(file.worker_id)
    same = [
        one
        for one in files
        if one.source_index == file.source_index
        and one.worker_id != file.worker_id
        and not one.local_dir
        and one.deleted_at is None
    ]
    ready = sorted((one for one in same if one.state is FileState.READY), key=lambda one: one.id)
    turn = file.id % len(ready) if ready else 0
    begun = [one for one in same if one.state is FileState.DOWNLOADING and one.id < file.id]
    ordered = [*ready[turn:], *ready[:turn], *sorted(begun, key=lambda one: -one.id)]
    found = ((one, workers.get(one.worker_id)) for one in ordered)
    usable = [(one, worker) for one, worker in found if worker is not None and _reaches(reader, worker)]
    return tuple(usable[:MOST_HOLDERS])


def _reaches(reader: Worker | None, worker: Worker) -> bool:
    """Whether a worker may be reached: one that the server reaches on its own machine only cannot be, from another."""
    if worker.condition.state is not WorkerState.READY or not worker.ip:
        return False
    return not is_loopback(worker.ip) or (reader is not None and is_loopback(reader.ip))


def users_of(
    file: ModelFile, instances: Iterable[ModelInstance], models: Mapping[int, Model]
) -> list[ModelInstance]:
    """The instances that read ``file``: from the cache, never from a folder that a user chose (``local_dir``)."""
    if file.local_dir:
        return []
    return [one for one in instances if _reads(one, models.get(one.model_id), file)]


def _reads(instance: ModelInstance, model: Model | None, file: ModelFile) -> bool:
    if file.worker_id not in workers_of(instance):
        return False
    return any(source.index == file.source_index for source in _sources_of(instance, model))


def _sources_of(instance: ModelInstance, model: Model | None) -> tuple[ModelSource, ...]:
    adapters = () if model is None else model.lora_adapters
    return (instance.source, *(adapter.source for adapter in adapters))


@attrs.frozen(kw_only=True)
class EvictionPlan:
    """The files to remove, the longest unused first, and the bytes that this frees. ``kept`` says why others stay."""

    files: tuple[ModelFile, ...] = ()
    freed: int = 0
    kept: str = ""


def evict(
    files: Iterable[ModelFile],
    instances: Sequence[ModelInstance],
    models: Mapping[int, Model],
    *,
    needed: int | None,
) -> EvictionPlan:
    """Which of a worker's ``files`` to remove to free ``needed`` bytes (``None``: all that nobody uses).

    Files that an instance uses, that are pinned, lie in a folder of a user's or were there before us are never among
    them; nor, where they cannot free enough, is any other.
    """
    ours = [
        file for file in files if file.source.kind is not SourceKind.LOCAL_PATH and file.deleted_at is None
    ]
    read = {
        (key, source.index)
        for one in instances
        for key in workers_of(one)
        for source in _sources_of(one, models.get(one.model_id))
    }
    used = {file.id for file in ours if file.local_dir or (file.worker_id, file.source_index) in read}
    free = [file for file in ours if file.id not in used]
    pinned = [file for file in free if file.pinned]
    idle = [
        file for file in free if file.state is FileState.READY and not file.pinned and file.cleanup_on_delete
    ]
    kept = _kept(len(used), len(pinned))
    chosen: list[ModelFile] = []
    freed = 0
    for file in sorted(idle, key=_last_used):
        if needed is not None and freed >= needed:
            break
        chosen.append(file)
        freed += file.size or 0
    if needed is not None and freed < needed:
        without = (
            f"all that nobody uses is {human_bytes(freed)}" if idle else "there is nothing that nobody uses"
        )
        return EvictionPlan(kept=f"{without}{f'; {kept}' if kept else ''}")
    return EvictionPlan(files=tuple(chosen), freed=freed, kept=kept)


def _last_used(file: ModelFile) -> tuple[float, int]:
    instant = file.last_used_at or file.created_at
    return (0.0 if instant is None else instant.timestamp(), file.id)


def _kept(used: int, pinned: int) -> str:
    parts = [
        f"{count} {'source is' if count == 1 else 'sources are'} {what}"
        for count, what in ((used, "in use"), (pinned, "pinned"))
        if count
    ]
    return ", ".join(parts)

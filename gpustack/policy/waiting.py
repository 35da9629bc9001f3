"""What an instance that does not run waits for, and until when where that can be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import attrs

from gpustack.domain.artifact import FileState, ModelFile
from gpustack.domain.instance import ModelInstance, status_of, workers_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import Worker, WorkerState

_S = InstanceState
_NAMED = 3


@attrs.frozen(kw_only=True)
class Wait:
    """``what`` is one word: ``place``, ``room``, ``header``, ``worker``, ``files``, ``engine``, ``followers``,
    ``retry`` or ``end``. ``until`` is an estimate; ``None`` where it cannot be told."""

    what: str
    sentence: str
    until: datetime | None = None


def wait_of(
    instance: ModelInstance, snapshot: Snapshot, *, silence_allowed: timedelta | None = None
) -> Wait | None:
    """What the instance waits for; ``None`` for one that runs, or that nobody starts again.

    ``silence_allowed`` is how long a worker may be not ready before its instances are placed elsewhere.
    """
    if instance.deleted_at is not None:
        return _ending(instance, snapshot)
    if instance.placement is not None and instance.state is not _S.RUNNING:
        silent = _silent(instance, snapshot)
        if silent is not None:
            return _for_worker(silent, silence_allowed)
    found = _OF_STATES.get(instance.state)
    return None if found is None else found(instance, snapshot)


def _pending(instance: ModelInstance, snapshot: Snapshot) -> Wait:
    if instance.reserved is not None:
        return Wait(what="room", sentence="its place is kept for it; it waits until what is there has ended")
    if instance.state_message:
        return Wait(what="place", sentence="it waits for a place; gpustack explain says what is in the way")
    return Wait(what="place", sentence="it waits for the scheduler, which has not decided on it yet")


def _analyzing(instance: ModelInstance, snapshot: Snapshot) -> Wait:
    return Wait(what="header", sentence=f"the header of {instance.source.readable} is being read")


def _scheduled(instance: ModelInstance, snapshot: Snapshot) -> Wait:
    return Wait(what="worker", sentence=f"it waits until {_workers(instance, snapshot)} takes it up")


def _initializing(instance: ModelInstance, snapshot: Snapshot) -> Wait:
    """Its worker says in the state's message what else it does: install an engine, wait for a port, for Ray."""
    late = [] if instance.placement is None else _late(instance, snapshot)
    if late:
        listed = ", ".join(late[:_NAMED]) + (f" and {len(late) - _NAMED} more" if len(late) > _NAMED else "")
        return Wait(what="followers", sentence=f"it waits for its followers: {listed}")
    said = instance.state_message
    doing = said[:1].lower() + said[1:] if said else "looks for its files and a port"
    if said:
        return Wait(what="engine", sentence=f"on {_workers(instance, snapshot)}: {doing}")
    return Wait(what="engine", sentence=f"{_workers(instance, snapshot)} {doing}")


def _late(instance: ModelInstance, snapshot: Snapshot) -> list[str]:
    """Followers that have begun and are not ready, and what each does."""
    assert instance.placement is not None
    found = []
    for number, share in enumerate(instance.placement.subordinates, start=1):
        status = status_of(instance, number)
        if status.state in (_S.RUNNING, _S.PENDING):
            continue
        worker = snapshot.workers.get(share.worker_id)
        name = share.worker_name if worker is None else worker.name
        progress = "" if status.download_progress is None else f" {status.download_progress:.0f}%"
        found.append(f"{name or number} is {status.state.value}{progress}")
    return found


def _downloading(instance: ModelInstance, snapshot: Snapshot) -> Wait:
    file = next((one for one in snapshot.files.values() if _is_fetched_for(one, instance)), None)
    if file is None:
        return Wait(what="files", sentence=f"its files are fetched to {_workers(instance, snapshot)}")
    done = "" if file.download_progress is None else f", {file.download_progress:.0f}% is there"
    size = "" if file.size is None else f" of {human_bytes(file.size)}"
    speed = "" if not file.download_speed else f" at {human_bytes(int(file.download_speed))} a second"
    sentence = f"its files{size} are fetched to {_workers(instance, snapshot)}{speed}{done}"
    left, told = file.eta, file.updated_at
    until = None if left is None or told is None else told + timedelta(seconds=left)
    return Wait(what="files", sentence=sentence, until=until)


def _is_fetched_for(file: ModelFile, instance: ModelInstance) -> bool:
    same = file.worker_id == instance.worker_id and file.source_index == instance.source.index
    return same and file.state is FileState.DOWNLOADING


def _starting(instance: ModelInstance, snapshot: Snapshot) -> Wait:
    sentence = (
        f"its engine on {_workers(instance, snapshot)} loads the model; gpustack logs shows what it says"
    )
    return Wait(what="engine", sentence=sentence)


def _failed(instance: ModelInstance, snapshot: Snapshot) -> Wait | None:
    if instance.next_retry_at is None:
        return None
    return Wait(what="retry", sentence="it is started again after a pause", until=instance.next_retry_at)


_OF_STATES: Mapping[InstanceState, Callable[[ModelInstance, Snapshot], Wait | None]] = {
    _S.PENDING: _pending,
    _S.ANALYZING: _analyzing,
    _S.SCHEDULED: _scheduled,
    _S.INITIALIZING: _initializing,
    _S.DOWNLOADING: _downloading,
    _S.STARTING: _starting,
    _S.ERROR: _failed,
}


def _ending(instance: ModelInstance, snapshot: Snapshot) -> Wait:
    silent = _silent(instance, snapshot)
    if silent is not None:
        return Wait(what="end", sentence=f"its end waits until worker {silent.name} is heard again")
    return Wait(what="end", sentence=f"{_workers(instance, snapshot)} ends its engine")


def _silent(instance: ModelInstance, snapshot: Snapshot) -> Worker | None:
    """The first of its workers that is not ready."""
    there = (snapshot.workers.get(key) for key in sorted(workers_of(instance)))
    return next((w for w in there if w is not None and w.condition.state is not WorkerState.READY), None)


def _for_worker(worker: Worker, silence_allowed: timedelta | None) -> Wait:
    why = f" ({worker.condition.why})" if worker.condition.why else ""
    sentence = f"its worker {worker.name} is {worker.condition.state.value.replace('_', ' ')}{why}"
    since = worker.condition.since
    if worker.condition.state is WorkerState.NOT_READY and silence_allowed is not None and since is not None:
        return Wait(
            what="worker",
            sentence=f"{sentence}; if it stays away, it is placed elsewhere",
            until=since + silence_allowed,
        )
    return Wait(what="worker", sentence=sentence)


def _workers(instance: ModelInstance, snapshot: Snapshot) -> str:
    names = [w.name for key in sorted(workers_of(instance)) if (w := snapshot.workers.get(key)) is not None]
    if not names:
        return "its worker"
    return f"worker {names[0]}" if len(names) == 1 else f"each of workers {', '.join(names[:_NAMED])}"

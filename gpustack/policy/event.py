"""Which events the changes of one transaction are, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from gpustack.domain.artifact import FileState, ModelFile
from gpustack.domain.audit import AuditEvent
from gpustack.domain.event import ClusterEvent, EventSeverity, ObjectKind
from gpustack.domain.instance import ModelInstance, Placement, claims_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import SPEC_FIELDS, Model
from gpustack.domain.record import ChangeKind, Record
from gpustack.domain.revision import ModelRevision
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import Worker, WorkerState

LONGEST_TEXT = 1000
"""Characters of the sentence of an event."""
_SHOWN = frozenset({"replicas", "priority", "name", "placement_strategy", "backend", "backend_version"})
"""Fields of a model whose values are told; of the others, which may hold secrets, only the names are."""

_INFO, _WARNING, _ERROR = EventSeverity.INFO, EventSeverity.WARNING, EventSeverity.ERROR
_S = InstanceState


@attrs.frozen
class RecordChange:
    """One change of a transaction; ``before`` is ``None`` where the record was created."""

    kind: ChangeKind
    record: Record
    before: Record | None


@attrs.frozen(kw_only=True)
class _Draft:
    """An event of a record, before it is known what it is about, when it was, and who did it."""

    kind: str
    text: str
    severity: EventSeverity = _INFO
    data: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class EventContext:
    """What the sentences need beside the changes."""

    now: datetime
    worker_name: Callable[[int], str]
    actor: str = ""
    revision: ModelRevision | None = None
    """The revision of a model that is kept with the change."""


def context_of(histories: Iterable[Record], now: datetime, worker_name: Callable[[int], str]) -> EventContext:
    """Who did it, and as which revision of a model it is kept, is in what a transaction adds to the histories."""
    actor, revision = "", None
    for record in histories:
        match record:
            case AuditEvent():
                actor = record.actor_name
            case ModelRevision():
                revision = record
    return EventContext(now=now, worker_name=worker_name, actor=actor, revision=revision)


def events_of(changes: Sequence[RecordChange], context: EventContext) -> list[ClusterEvent]:
    """The events that the changes of one transaction are, in their order."""
    return [event for change in changes for event in _events(change, context)]


def _events(change: RecordChange, context: EventContext) -> Iterator[ClusterEvent]:
    record, before = change.record, change.before
    is_deleted = change.kind is ChangeKind.DELETED
    told: Iterable[_Draft] = ()
    match record:
        case ModelInstance():
            was = before if isinstance(before, ModelInstance) else None
            told = [_ended(record)] if is_deleted else _of_instance(was, record, context)
            about = _about(ObjectKind.INSTANCE, record.name, record.model_id, _where(was, record))
        case Model():
            told = _of_model(before if isinstance(before, Model) else None, record, is_deleted, context)
            about = _about(ObjectKind.MODEL, record.name, record.id, None)
        case Worker():
            told = _of_worker(before if isinstance(before, Worker) else None, record, is_deleted, context)
            about = _about(ObjectKind.WORKER, record.name, None, record.id)
        case ModelFile():
            told = _of_file(before if isinstance(before, ModelFile) else None, record, is_deleted)
            about = _about(ObjectKind.FILE, record.source.readable, None, record.worker_id)
        case _:
            return
    for one in told:
        yield ClusterEvent(
            at=context.now,
            kind=one.kind,
            severity=one.severity,
            object_id=record.id,
            text=one.text if len(one.text) <= LONGEST_TEXT else f"{one.text[: LONGEST_TEXT - 1]}…",
            actor=context.actor,
            data=one.data,
            **about,
        )


def _about(kind: ObjectKind, name: str, model_id: int | None, worker_id: int | None) -> dict[str, Any]:
    return {"object_kind": kind, "object_name": name, "model_id": model_id, "worker_id": worker_id}


def _by(context: EventContext) -> str:
    return f" by {context.actor}" if context.actor else ""


# --- instances


def _where(before: ModelInstance | None, after: ModelInstance) -> int | None:
    return after.worker_id or (None if before is None else before.worker_id)


def _ended(instance: ModelInstance) -> _Draft:
    return _Draft(kind="instance.ended", text="It has ended")


def _of_instance(
    before: ModelInstance | None, after: ModelInstance, context: EventContext
) -> Iterator[_Draft]:
    if before is None:
        data = {"generation": after.generation}
        yield _Draft(kind="instance.created", text=f"Created as a replica of {after.model_name}", data=data)
        return
    if after.displaced_by and after.displaced_by != before.displaced_by and after.deleted_at is not None:
        text = f"Makes room for {after.displaced_by}"
        yield _Draft(kind="instance.preempted", text=text, severity=_WARNING)
    elif after.deleted_at is not None and before.deleted_at is None:
        yield _Draft(kind="instance.ending", text=f"Asked to end{_by(context)}")
    if after.restart_count > before.restart_count:
        yield _Draft(
            kind="instance.restarted",
            text=f"Started again, for the {_nth(after.restart_count)} time",
            severity=_WARNING,
            data={"restart_count": after.restart_count},
        )
    is_said_anew = after.state_message != before.state_message and after.state is _S.PENDING
    if after.state is not before.state or is_said_anew:
        yield from _of_move(before, after, context)


def _of_move(before: ModelInstance, after: ModelInstance, context: EventContext) -> Iterator[_Draft]:
    data: dict[str, Any] = {"from": before.state.value, "to": after.state.value}
    message = after.state_message
    match after.state:
        case _S.SCHEDULED if after.placement is not None:
            place = _shown_place(after.placement, context)
            text = f"Placed on {place}{f': {message}' if message else ''}"
            yield _Draft(kind="instance.placed", text=text, data=data | _place_data(after.placement))
        case _S.PENDING if before.placement is not None and after.placement is None:
            yield _Draft(
                kind="instance.evicted", text=message or "Lost its place", severity=_WARNING, data=data
            )
        case _S.PENDING if message:
            yield _Draft(kind="instance.waits", text=f"Waits: {message}", severity=_WARNING, data=data)
        case _S.INITIALIZING if before.state not in (_S.SCHEDULED, _S.ERROR):
            yield _Draft(kind="instance.begins", text="Its engine is started anew", data=data)
        case _S.DOWNLOADING:
            yield _Draft(kind="instance.downloading", text="Fetches its files", data=data)
        case _S.STARTING:
            yield _Draft(kind="instance.starting", text="Its files are there; the engine starts", data=data)
        case _S.RUNNING:
            back = before.state is _S.UNREACHABLE
            text = "Runs; its worker is heard again" if back else "Runs"
            yield _Draft(kind="instance.running", text=text, data=data)
        case _S.UNREACHABLE:
            text = message or "Its worker is silent"
            yield _Draft(kind="instance.unreachable", text=text, severity=_WARNING, data=data)
        case _S.ERROR:
            data["next_retry_at"] = None if after.next_retry_at is None else after.next_retry_at.isoformat()
            text = f"Failed: {message}" if message else "Failed"
            yield _Draft(kind="instance.failed", text=text, severity=_ERROR, data=data)


def _shown_place(place: Placement, context: EventContext) -> str:
    shares = [place.share(member) for member in range(1 + len(place.subordinates))]
    return ", ".join(f"{context.worker_name(share.worker_id)}{_gpus(share.gpu_indexes)}" for share in shares)


def _gpus(indexes: Sequence[int]) -> str:
    if not indexes:
        return " (CPU)"
    return f" (GPU{'s' if len(indexes) > 1 else ''} {', '.join(map(str, indexes))})"


def _place_data(place: Placement) -> dict[str, Any]:
    return {
        "worker_ids": [worker_id for worker_id, _ in claims_of(place)],
        "gpu_indexes": list(place.gpu_indexes),
    }


def _nth(count: int) -> str:
    last = {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{'th' if 10 < count % 100 < 14 else last}"


# --- models


def _of_model(
    before: Model | None, after: Model, is_deleted: bool, context: EventContext
) -> Iterator[_Draft]:
    if is_deleted:
        yield _Draft(kind="model.deleted", text=f"Deleted{_by(context)}")
        return
    if before is None:
        text = f"Deployed{_by(context)}: {after.source.readable}"
        yield _Draft(kind="model.created", text=text, data={"replicas": after.replicas})
        return
    fields = sorted(name for name in SPEC_FIELDS if getattr(before, name) != getattr(after, name))
    if not fields:
        return
    data: dict[str, Any] = {"fields": fields}
    revision = context.revision
    if revision is not None and revision.model_id == after.id:
        data["rolled_back_to"] = revision.rolled_back_to
        if revision.rolled_back_to is not None:
            text = f"Brought back to revision {revision.rolled_back_to}{_by(context)}"
            yield _Draft(kind="model.rolled_back", text=text, data=data)
            return
    shown = ", ".join(_shown_field(name, before, after) for name in fields)
    yield _Draft(kind="model.changed", text=f"Changed{_by(context)}: {shown}", data=data)


def _shown_field(name: str, before: Model, after: Model) -> str:
    if name not in _SHOWN:
        return name
    return f"{name} {_plain(getattr(before, name))} → {_plain(getattr(after, name))}"


def _plain(value: object) -> str:
    return "none" if value is None else str(value)


# --- workers


def _of_worker(
    before: Worker | None, after: Worker, is_deleted: bool, context: EventContext
) -> Iterator[_Draft]:
    if is_deleted:
        yield _Draft(kind="worker.deleted", text=f"Removed{_by(context)}", severity=_WARNING)
        return
    if before is None:
        yield _Draft(kind="worker.joined", text=f"Joined from {after.ip}")
        return
    yield from _of_orders(before, after, context)
    yield from _of_condition(before, after)
    if before.version_running and after.version_running != before.version_running:
        text = f"Runs {after.version_running}, before that {before.version_running}"
        yield _Draft(kind="worker.version", text=text)
    for device in after.status.gpu_devices:
        known = before.device(device.index)
        if known is not None and device.fault is not None and known.fault is None:
            text = f"GPU {device.index} ({device.name}) is not usable: {device.fault}"
            yield _Draft(
                kind="worker.gpu_failed", text=text, severity=_ERROR, data={"gpu_index": device.index}
            )


def _of_orders(before: Worker, after: Worker, context: EventContext) -> Iterator[_Draft]:
    """What administrators, and a worker that stops, say."""
    if after.barred and not before.barred:
        yield _Draft(kind="worker.barred", text=f"Barred{_by(context)}", severity=_WARNING)
    elif before.barred and not after.barred:
        yield _Draft(kind="worker.readmitted", text=f"May join again{_by(context)}")
    if after.draining and not before.draining:
        yield _Draft(kind="worker.drains", text=f"Is being emptied{_by(context)}")
    elif before.draining and not after.draining:
        yield _Draft(kind="worker.drain_ended", text=f"Is not being emptied any more{_by(context)}")
    if after.cordoned and not before.cordoned and not (after.draining and not before.draining):
        yield _Draft(kind="worker.cordoned", text=f"Takes no more instances{_by(context)}")
    elif before.cordoned and not after.cordoned:
        yield _Draft(kind="worker.uncordoned", text=f"Takes instances again{_by(context)}")
    if after.taints != before.taints:
        keys = ", ".join(sorted({taint.key for taint in after.taints})) or "none"
        yield _Draft(kind="worker.tainted", text=f"Its taints are now{_by(context)}: {keys}")
    if after.leaving and not before.leaving:
        yield _Draft(kind="worker.stopped", text="Stopped in order", severity=_WARNING)


def _of_condition(before: Worker, after: Worker) -> Iterator[_Draft]:
    was, now = before.condition, after.condition
    if now.state is was.state or after.barred or (after.leaving and not before.leaving):
        return
    data = {"from": was.state.value, "to": now.state.value}
    if now.state is WorkerState.READY:
        yield _Draft(kind="worker.ready", text="Is there again", data=data)
        return
    severity = _ERROR if now.state is WorkerState.UNREACHABLE else _WARNING
    kind = "worker.unreachable" if now.state is WorkerState.UNREACHABLE else "worker.not_ready"
    word = "Is unreachable" if now.state is WorkerState.UNREACHABLE else "Is not ready"
    yield _Draft(kind=kind, text=f"{word}: {now.why}" if now.why else word, severity=severity, data=data)


# --- model files


def _of_file(before: ModelFile | None, after: ModelFile, is_deleted: bool) -> Iterator[_Draft]:
    if is_deleted:
        yield _Draft(kind="file.removed", text="Removed")
        return
    if before is None:
        if after.state is FileState.DOWNLOADING:
            yield _Draft(kind="file.fetching", text="Is being fetched")
        return
    if after.deleted_at is not None and before.deleted_at is None:
        yield _Draft(kind="file.removing", text="Is to be removed")
    if after.state is before.state:
        return
    match after.state:
        case FileState.READY:
            size = "" if after.size is None else f", {human_bytes(after.size)}"
            source = f" from {after.fetched_from}" if after.fetched_from else ""
            yield _Draft(kind="file.ready", text=f"Is there{size}{source}", data={"size": after.size})
        case FileState.ERROR:
            text = f"Failed: {after.state_message}" if after.state_message else "Failed"
            yield _Draft(kind="file.failed", text=text, severity=_ERROR)
        case FileState.DOWNLOADING:
            yield _Draft(kind="file.fetching", text="Is being fetched again")

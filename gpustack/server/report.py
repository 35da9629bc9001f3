"""Reports of workers on their instances, files and hardware, written to the records within bounds."""

from __future__ import annotations

import enum
import operator
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import attrs

from gpustack.domain.artifact import FileState, ModelFile
from gpustack.domain.instance import ModelInstance, members_on, workers_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.load import load_of, status_to_record
from gpustack.domain.model import Model
from gpustack.domain.report import FileReport, InstanceReport, StatusReport, members_after
from gpustack.domain.worker import Worker, WorkerState
from gpustack.errors import Conflict, Forbidden
from gpustack.policy.liveness import STOPPED
from gpustack.server.credential import confirmed
from gpustack.server.drain import begin_drain
from gpustack.server.lifecycle import take_end, take_report
from gpustack.server.live_status import LiveStatus
from gpustack.server.liveness import condition_after_status, with_reason
from gpustack.server.memory_record import credible, take_measured
from gpustack.server.row_write import existing
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

__all__ = [
    "FileReport",
    "InstanceReport",
    "StatusReport",
    "report_file",
    "report_instance",
    "report_status",
    "worker_drains",
    "worker_leaves",
]

_WITHOUT_ENGINE = frozenset(
    {
        InstanceState.SCHEDULED,
        InstanceState.INITIALIZING,
        InstanceState.DOWNLOADING,
        InstanceState.ERROR,
    }
)


async def report_instance(store: Store, worker_id: int, instance_id: int, report: InstanceReport) -> None:
    """Take a report. Raises ``NotFound`` when the instance is gone, ``Forbidden`` when it is not (or no longer)
    placed on this worker, ``Conflict`` when its life does not allow the move."""

    report = attrs.evolve(report, memory=None if report.memory is None else credible(report.memory))

    def work(tx: Tx) -> None:
        instance = existing(tx, ModelInstance, instance_id)
        if report.member not in members_on(instance, worker_id):
            raise Forbidden(f"Model instance {instance.name} is not placed on this worker")
        if report.gone:
            take_end(tx, instance, report.member)
            return
        if report.member:
            _take_member_report(tx, instance, report)
            return
        if report.state is InstanceState.RUNNING and instance.state is InstanceState.UNREACHABLE:
            _refuse_while_cut_off(tx, instance, worker_id)
        if report.outgrown:
            _replace_outgrown(tx, instance)
        take_report(tx, instance, {**_voided_fields(instance, report), **_reported_fields(report)})
        if report.memory is not None:
            take_measured(tx, instance, report.memory)

    await store.write(work)


def _take_member_report(tx: Tx, instance: ModelInstance, report: InstanceReport) -> None:
    """Write what a follower says of itself. Raises ``Conflict`` when its attempt is over."""
    if report.attempt != instance.attempt:
        raise Conflict(f"Attempt {report.attempt} of model instance {instance.name} is over")
    tx.change(ModelInstance, instance.id, members=members_after(instance, bounded(report)))


def _replace_outgrown(tx: Tx, instance: ModelInstance) -> None:
    """Begin a new generation of a deployment whose engines were started with too little room for what it names now.
    Those of the new one are started with enough, so that this ends."""
    model = tx.get(Model, instance.model_id)
    if model is not None and model.generation == instance.generation:
        tx.change(Model, model.id, generation=model.generation + 1)


def _refuse_while_cut_off(tx: Tx, instance: ModelInstance, worker_id: int) -> None:
    """Raises ``Conflict`` while another worker of a gang is silent: its main process runs on, but cannot answer."""
    for other in sorted(workers_of(instance) - {worker_id}):
        worker = tx.get(Worker, other)
        if worker is None or worker.condition.state is not WorkerState.READY:
            name = other if worker is None else worker.name
            raise Conflict(f"Worker {name} of model instance {instance.name} is not there")


def _voided_fields(instance: ModelInstance, report: InstanceReport) -> dict[str, Any]:
    """Fields that a report of a state makes void, but for those that it sets itself."""
    if report.state is None:
        return {}
    void: dict[str, Any] = {"next_retry_at": None}
    if report.state is not instance.state:
        void |= {"state_message": "", "pid": None}
    if report.state in _WITHOUT_ENGINE:
        void |= {"pid": None, "port": None, "ports": (), "memory": None}
    return {name: value for name, value in void.items() if getattr(report, name) is None}


async def report_file(store: Store, worker_id: int, file_id: int, report: FileReport) -> None:
    """Take a report. Raises ``NotFound`` or ``Forbidden`` as ``report_instance`` does.

    A file that was removed while somebody asked for it anew is fetched again.
    """

    def work(tx: Tx) -> None:
        file = existing(tx, ModelFile, file_id)
        if file.worker_id != worker_id:
            raise Forbidden(f"Model file {file_id} is not on this worker")
        if report.evicted is not None:
            tx.delete(ModelFile, file_id)
        elif not report.gone:
            done = report.state not in (None, FileState.DOWNLOADING)
            tx.change(
                ModelFile, file_id, **({"download_speed": None} if done else {}), **_reported_fields(report)
            )
        elif file.deleted_at is not None:
            tx.delete(ModelFile, file_id)
        else:
            tx.change(ModelFile, file_id, **TO_FETCH)

    await store.write(work)


TO_FETCH: dict[str, Any] = {
    "state": FileState.DOWNLOADING,
    "state_message": "",
    "download_progress": 0.0,
    "resolved_paths": (),
}
"""The fields of a file that its worker is to fetch (again)."""


async def report_status(
    store: Store,
    live: LiveStatus,
    worker_id: int,
    report: StatusReport,
    now: datetime,
    shown: str | None = None,
) -> None:
    """Take the worker's status: its load into ``live``, the rest into its record. Labels that it reports are added and
    overwrite none.

    Raises ``NotFound``. Nothing is written where the record says the same already, but for the date every
    ``STAMP_EVERY``. ``now`` is the wall clock. ``shown`` is the hash of the credential that it showed: it is confirmed
    in the same write, of which each worker has one when it joins.
    """

    report = bounded(report)

    def work(tx: Tx) -> None:
        worker = existing(tx, Worker, worker_id)
        after = _after_status(confirmed(worker, shown), report, tx.now)
        if after is not worker or is_stamp_due(worker, tx.now):
            tx.update(attrs.evolve(after, heartbeat_time=tx.now))

    known = store.snapshot.get(Worker, worker_id)
    if (
        known is None
        or is_stamp_due(known, now)
        or _after_status(confirmed(known, shown), report, now) is not known
    ):
        await store.write(work)
    live.reported(worker_id, load_of(report.status))


STAMP_EVERY = timedelta(hours=1)
"""How often the record of a worker that reports gets the date, though nothing else has changed: it is shown after a
restart of the server."""


def is_stamp_due(worker: Worker, now: datetime) -> bool:
    """Whether the date in the record is that old."""
    return worker.heartbeat_time is None or now - worker.heartbeat_time >= STAMP_EVERY


def _after_status(worker: Worker, report: StatusReport, now: datetime) -> Worker:
    """The record after a status; the very same where that changes nothing."""
    after = attrs.evolve(
        worker,
        status=status_to_record(report.status, worker.status),
        condition=condition_after_status(worker.condition, report.status, now),
        ip=worker.ip if report.ip is None else report.ip,
        labels=merged_labels(worker.labels, report.labels or {}),
    )
    return worker if after == worker else after


async def worker_drains(store: Store, worker_id: int) -> None:
    """Drain the worker: its instances are replaced elsewhere, then it stops. Raises ``NotFound``."""

    def work(tx: Tx) -> None:
        begin_drain(tx, worker_id)

    await store.write(work)


async def worker_leaves(store: Store, worker_id: int) -> None:
    """The worker stops in order: nothing is placed there until it joins again. Raises ``NotFound``."""

    def work(tx: Tx) -> None:
        worker = existing(tx, Worker, worker_id)
        condition = worker.condition
        if condition.state is WorkerState.READY:
            condition = with_reason(condition, WorkerState.NOT_READY, STOPPED, tx.now)
        tx.update(attrs.evolve(worker, leaving=True, condition=condition))

    await store.write(work)


def _reported_fields(report: InstanceReport | FileReport) -> dict[str, Any]:
    report = bounded(report)
    return {
        field.name: getattr(report, field.name)
        for field in attrs.fields(type(report))
        if field.name not in ("gone", "member", "outgrown", "evicted")
        and getattr(report, field.name) is not None
    }


T = TypeVar("T")

LONGEST = 4096
"""Characters of a text."""
MOST = 1024
"""Entries of a list: file systems, devices, the files of one source."""
LONGEST_NAME = 256
"""Characters of a label's name."""
MOST_LABELS = 64
MOST_FILES = 4096
"""Records of model files on one worker."""
MOST_WORKERS = 4096


def bounded(value: T) -> T:
    """The same with long texts and lists cut, whatever it is made of; the value itself where nothing is too long."""
    found: Any = _bounded(value)
    return found  # type: ignore[no-any-return]


def merged_labels(first: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The labels ``first``, and of ``more`` as many as there is room for.

    A worker that brings others with each report gets no more than one that brings them at once.
    """
    room = max(MOST_LABELS - len(first), 0)
    new = [(name[:LONGEST_NAME], text) for name, text in more.items() if name[:LONGEST_NAME] not in first]
    return {**bounded(dict(new[:room])), **first}


def _bounded(value: Any) -> Any:
    if type(value) in _NEVER_LONG:
        return value
    match value:
        case enum.Enum():
            return value
        case str():
            return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
        case tuple():
            kept = tuple(map(_bounded, value[:MOST]))
            same = len(kept) == len(value) and all(map(operator.is_, kept, value))
            return value if same else kept
        case Mapping():
            few = list(value.items())[:MOST_LABELS]
            bounds = {
                name[:LONGEST_NAME] if isinstance(name, str) else name: _bounded(one) for name, one in few
            }
            return value if bounds == value else bounds
    changes = {}
    for name in _names_of(type(value)):
        before = getattr(value, name)
        after = before if type(before) in _NEVER_LONG else _bounded(before)
        if after is not before:
            changes[name] = after
    return attrs.evolve(value, **changes) if changes else value


_NEVER_LONG = frozenset({type(None), bool, int, float, datetime})


_NAMES: dict[type[Any], tuple[str, ...]] = {}


def _names_of(cls: type[Any]) -> tuple[str, ...]:
    """The fields of an attrs class, looked up once; none of any other."""
    names = _NAMES.get(cls)
    if names is None:
        names = tuple(field.name for field in attrs.fields(cls)) if attrs.has(cls) else ()
        _NAMES[cls] = names
    return names

"""Disks for model files that are nearly full."""

from __future__ import annotations

from collections.abc import Iterator

from gpustack.domain.event import ObjectKind
from gpustack.domain.unit import GIB, human_bytes
from gpustack.domain.worker import Worker
from gpustack.policy.attention import (
    ActionKind,
    AttentionLook,
    Trouble,
    TroubleAction,
    TroubleObject,
    TroubleSeverity,
)
from gpustack.policy.model_file import evict
from gpustack.text import counted

KIND = "disk"
_SHARE = 0.05
_LEAST, _NONE = 20 * GIB, 2 * GIB
"""Nearly full is one with less than ``_SHARE`` of it free, where that is less than ``_LEAST`` bytes; it is full with
less than ``_NONE``."""


def find(look: AttentionLook) -> Iterator[Trouble]:
    """One for each worker."""
    for worker in look.snapshot.workers.values():
        free = worker.model_bytes_free
        if free is None or free >= _enough(worker):
            continue
        severity = TroubleSeverity.CRITICAL if free < _NONE else TroubleSeverity.WARNING
        yield Trouble(
            id=f"{KIND}:worker:{worker.id}",
            kind=KIND,
            severity=severity,
            text=f"The disk for model files of worker {worker.name} has {human_bytes(free)} left",
            since=None,
            object=TroubleObject(kind=ObjectKind.WORKER.value, id=worker.id, name=worker.name),
            actions=tuple(_actions(look, worker, _enough(worker) - free)),
        )


def more(count: int) -> str:
    return f"The disks of {counted(count, 'more worker')} are nearly full"


def _enough(worker: Worker) -> int:
    disk = worker.status.model_disk
    mounts = worker.status.filesystem
    total = next(
        (one.total for one in mounts if disk is not None and one.mount_point == disk.mount_point), None
    )
    return _LEAST if total is None else max(_NONE, min(_LEAST, int(total * _SHARE)))


def _actions(look: AttentionLook, worker: Worker, needed: int) -> Iterator[TroubleAction]:
    """To remove what nobody uses, where there is such a file."""
    there = tuple({one.id: one for one, _ in look.snapshot.claims_on(worker.id)}.values())
    plan = evict(look.snapshot.files_on(worker.id), there, look.snapshot.models, needed=needed)
    if not plan.files:
        return
    size = sum(file.size or 0 for file in plan.files)
    what = counted(len(plan.files), "file")
    yield TroubleAction(
        kind=ActionKind.EVICT_FILES,
        label=f"Remove {what} that nobody uses ({human_bytes(size)})",
        method="POST",
        path="/v1/model-files/evict",
        body={"worker_id": worker.id, "bytes": needed},
        confirm=f"Remove {what} from worker {worker.name}?",
    )

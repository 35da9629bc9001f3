"""GPUs that cannot be used, and hardware that cannot be looked at."""

from __future__ import annotations

from collections.abc import Iterator

from gpustack.domain.event import ObjectKind
from gpustack.domain.worker import Worker
from gpustack.policy.attention import (
    NAMED,
    ActionKind,
    AttentionLook,
    Trouble,
    TroubleAction,
    TroubleObject,
    TroubleSeverity,
    cut,
)
from gpustack.text import counted, listed

KIND = "hardware"


def find(look: AttentionLook) -> Iterator[Trouble]:
    """One for each worker, until administrators let it take no more instances."""
    for worker in look.snapshot.workers.values():
        faults = _faults(worker)
        if not faults or worker.cordoned or worker.barred:
            continue
        broken = any(device.fault is not None for device in worker.status.gpu_devices)
        yield Trouble(
            id=f"{KIND}:worker:{worker.id}",
            kind=KIND,
            severity=TroubleSeverity.WARNING if broken else TroubleSeverity.NOTICE,
            text=cut(f"Worker {worker.name}: {listed(faults, NAMED)}"),
            since=worker.status.stale_since,
            object=TroubleObject(kind=ObjectKind.WORKER.value, id=worker.id, name=worker.name),
            count=len(faults),
            actions=(
                TroubleAction(
                    kind=ActionKind.CORDON,
                    label="Cordon it: place nothing more there",
                    method="PUT",
                    path=f"/v1/workers/{worker.id}",
                    body={"cordoned": True},
                ),
            ),
        )


def more(count: int) -> str:
    return f"{counted(count, 'more worker')} have faults of hardware"


def _faults(worker: Worker) -> list[str]:
    broken = [
        f"GPU {device.index} ({device.name}) is not usable: {device.fault}"
        for device in worker.status.gpu_devices
        if device.fault is not None
    ]
    return [*broken, *worker.status.detection_faults]

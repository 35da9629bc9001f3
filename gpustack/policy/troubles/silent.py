"""Workers that are not heard, or were stopped and have not come back."""

from __future__ import annotations

from collections.abc import Iterator

from gpustack.domain.event import ObjectKind
from gpustack.domain.worker import Worker, WorkerState
from gpustack.policy.attention import (
    ActionKind,
    AttentionLook,
    Trouble,
    TroubleAction,
    TroubleObject,
    TroubleSeverity,
    cut,
)
from gpustack.text import counted

KIND = "silent"


def find(look: AttentionLook) -> Iterator[Trouble]:
    """One for each worker; not of those that administrators have barred."""
    for worker in look.snapshot.workers.values():
        state = worker.condition.state
        if state is WorkerState.READY or worker.barred:
            continue
        why = f": {worker.condition.why}" if worker.condition.why else ""
        word = "unreachable" if state is WorkerState.UNREACHABLE else "not ready"
        yield Trouble(
            id=f"{KIND}:worker:{worker.id}",
            kind=KIND,
            severity=_severity(worker),
            text=cut(f"Worker {worker.name} is {word}{why}"),
            since=worker.condition.since,
            object=TroubleObject(kind=ObjectKind.WORKER.value, id=worker.id, name=worker.name),
            actions=(
                TroubleAction(
                    kind=ActionKind.REMOVE_WORKER,
                    label="Remove it; its replicas start elsewhere",
                    method="DELETE",
                    path=f"/v1/workers/{worker.id}",
                    confirm=f"Remove worker {worker.name} from the cluster?",
                ),
            ),
        )


def more(count: int) -> str:
    return f"{counted(count, 'more worker')} cannot be reached"


def _severity(worker: Worker) -> TroubleSeverity:
    if worker.leaving:
        return TroubleSeverity.NOTICE
    unreachable = worker.condition.state is WorkerState.UNREACHABLE
    return TroubleSeverity.CRITICAL if unreachable else TroubleSeverity.WARNING

"""Workers that are being emptied, which waits for something that needs a decision."""

from __future__ import annotations

from collections.abc import Iterator

from gpustack.domain.event import ObjectKind
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
from gpustack.policy.drain_plan import drain_progress
from gpustack.policy.eviction import has_no_place
from gpustack.text import counted, listed

KIND = "drain"


def find(look: AttentionLook) -> Iterator[Trouble]:
    """One for each worker of which a replica finds no other place."""
    for worker in look.snapshot.workers.values():
        if not worker.draining:
            continue
        progress = drain_progress(worker, look.snapshot)
        models = {one.model_id for one, _ in look.snapshot.claims_on(worker.id)}
        stuck = any(has_no_place(one) for model_id in models for one in look.replicas(model_id))
        if not progress.left or not stuck:
            continue
        yield Trouble(
            id=f"{KIND}:worker:{worker.id}",
            kind=KIND,
            severity=TroubleSeverity.WARNING,
            text=cut(f"Worker {worker.name} cannot be emptied: {listed(progress.waits_for, NAMED)}"),
            since=worker.updated_at,
            object=TroubleObject(kind=ObjectKind.WORKER.value, id=worker.id, name=worker.name),
            count=len(progress.left),
            actions=(
                TroubleAction(
                    kind=ActionKind.STOP_DRAIN,
                    label="Stop emptying it",
                    method="PUT",
                    path=f"/v1/workers/{worker.id}",
                    body={"draining": False, "cordoned": False},
                ),
            ),
        )


def more(count: int) -> str:
    return f"{counted(count, 'more worker')} cannot be emptied"

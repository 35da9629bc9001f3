"""Models that would not survive the loss of one worker."""

from __future__ import annotations

from collections.abc import Iterator

from gpustack.policy.attention import (
    NAMED,
    AttentionLook,
    Trouble,
    TroubleSeverity,
    cut,
    of_model,
    want_replicas,
)
from gpustack.text import counted, listed

KIND = "fragile"


def find(look: AttentionLook) -> Iterator[Trouble]:
    """One for each model; of nothing where there is one worker only."""
    if len(look.snapshot.workers) < 2:
        return
    stopped_by: dict[int, list[str]] = {}
    for loss in look.losses.values():
        for one in loss.stops:
            stopped_by.setdefault(one.model_id, []).append(loss.worker)
    for model_id, workers in stopped_by.items():
        model = look.snapshot.models.get(model_id)
        if model is None or model.replicas == 0 or len(look.replicas(model_id)) > model.replicas:
            continue
        more_replicas = model.replicas + 1
        yield Trouble(
            id=f"{KIND}:model:{model.id}",
            kind=KIND,
            severity=TroubleSeverity.NOTICE,
            text=cut(f"If worker {listed(workers, NAMED)} is lost, nothing of {model.name} serves any more"),
            since=None,
            object=of_model(model),
            actions=(want_replicas(f"Run {counted(more_replicas, 'replica')}", model, more_replicas),),
        )


def more(count: int) -> str:
    return f"{counted(count, 'more model')} would not survive the loss of one worker"

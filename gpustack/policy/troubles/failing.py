"""Replicas that failed: those that are started again and again, and those that nobody starts any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.policy.attention import (
    ActionKind,
    AttentionLook,
    Trouble,
    TroubleAction,
    cut,
    earliest,
    of_model,
    want_replicas,
)
from gpustack.text import counted

KIND = "failing"
_MOST_ACTIONS = 3


def find(look: AttentionLook) -> Iterator[Trouble]:
    """One for each model."""
    for model, failed in look.by_model(partial(_fails, now=look.now)):
        verb = "fails" if len(failed) == 1 else "fail"
        first = min(failed, key=lambda one: (one.state is not InstanceState.ERROR, one.id))
        restarts = max(one.restart_count for one in failed)
        again = f" (started {counted(restarts, 'time')})" if restarts else ""
        why = first.state_message if first.state is InstanceState.ERROR else "it is being started again"
        text = f"{counted(len(failed), 'replica')} of {model.name} {verb}{again}: {why}"
        yield Trouble(
            id=f"{KIND}:model:{model.id}",
            kind=KIND,
            severity=look.severity_of(model),
            text=cut(text),
            since=earliest(one.state_since for one in failed),
            object=of_model(model),
            count=len(failed),
            actions=tuple(_actions(model, failed)),
        )


def more(count: int) -> str:
    return f"Replicas of {counted(count, 'more model')} fail"


_AGAIN_WITHIN = timedelta(minutes=10)
_STARTING = frozenset({InstanceState.INITIALIZING, InstanceState.DOWNLOADING, InstanceState.STARTING})


def _fails(instance: ModelInstance, now: datetime) -> bool:
    """One that is just being started again still fails: it is told all the time, and not every other minute."""
    if instance.state is InstanceState.ERROR:
        return True
    last = instance.last_restart_time
    return instance.state in _STARTING and last is not None and now - last <= _AGAIN_WITHIN


def _actions(model: Model, failed: list[ModelInstance]) -> Iterator[TroubleAction]:
    for instance in sorted(failed, key=lambda one: one.id)[:_MOST_ACTIONS]:
        yield TroubleAction(
            kind=ActionKind.REPLACE,
            label=f"Replace {instance.name}",
            method="DELETE",
            path=f"/v1/model-instances/{instance.id}",
        )
    if model.generation > 1:
        yield TroubleAction(
            kind=ActionKind.ROLL_BACK,
            label="Bring back what it was before its last change",
            method="POST",
            path=f"/v1/models/{model.id}/rollback",
            body={},
            confirm=f"Take the last change of {model.name} back?",
        )
    yield want_replicas("Stop it", model, 0, f"Set the replicas of {model.name} to 0?")

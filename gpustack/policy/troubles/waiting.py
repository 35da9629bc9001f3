"""Replicas that wait because they fit nowhere."""

from __future__ import annotations

from collections.abc import Iterator

from gpustack.domain.model import Model
from gpustack.policy.attention import (
    AttentionLook,
    Trouble,
    TroubleAction,
    by_remedy,
    cut,
    earliest,
    of_model,
    waits_for_decision,
    want_replicas,
)
from gpustack.text import counted

KIND = "waiting"
_MOST_ACTIONS = 3


def find(look: AttentionLook) -> Iterator[Trouble]:
    """One for each model."""
    for model, waiting in look.by_model(waits_for_decision):
        verb = "waits" if len(waiting) == 1 else "wait"
        first = min(waiting, key=lambda one: one.id)
        text = f"{counted(len(waiting), 'replica')} of {model.name} {verb}: {first.state_message}"
        yield Trouble(
            id=f"{KIND}:model:{model.id}",
            kind=KIND,
            severity=look.severity_of(model),
            text=cut(text),
            since=earliest(one.state_since or one.created_at for one in waiting),
            object=of_model(model),
            count=len(waiting),
            actions=_actions(look, model, len(waiting)),
        )


def more(count: int) -> str:
    return f"Replicas of {counted(count, 'more model')} wait for a place"


def _actions(look: AttentionLook, model: Model, waiting: int) -> tuple[TroubleAction, ...]:
    """What would make it fit, the least costly first; and to want no more replicas than there is room for."""
    known = (by_remedy(remedy) for remedy in look.remedies.get(model.id, ()))
    found = [action for action in known if action is not None][:_MOST_ACTIONS]
    fewer = max(0, min(model.replicas, len(look.replicas(model.id))) - waiting)
    label = "Stop it" if fewer == 0 else f"Want {counted(fewer, 'replica')} only"
    question = f"Set the replicas of {model.name} to {fewer}?"
    return (*found, want_replicas(label, model, fewer, question))

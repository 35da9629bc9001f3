"""How many replicas to create and which to end, so that a model runs as wished, its present generation only."""

from __future__ import annotations

import attrs

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import SERVING, InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot

from .placement import MAKES_ROOM
from .victim import victims

SURGE = 1
"""Replicas above the wish while a new generation takes over."""


@attrs.frozen(kw_only=True)
class ReplicaPlan:
    """``end`` are ids, least missed first."""

    create: int = 0
    end: tuple[int, ...] = ()


def replica_plan(model: Model, instances: list[ModelInstance], snapshot: Snapshot) -> ReplicaPlan:
    """What to do now. Once it is done, asking again answers nothing until something else has changed.

    A new generation takes over replica by replica: one new, and when it serves one old ends. Where the new one
    finds no room beside the old, an old one ends first. What sits on a worker that is drained is replaced likewise.
    """
    alive = [instance for instance in instances if instance.deleted_at is None]
    older = [i for i in alive if i.generation < model.generation or on_drained(i, snapshot)]
    current = [instance for instance in alive if instance not in older]
    wanted = max(model.replicas, 0)
    end = victims(model, current, snapshot)[: max(len(current) - wanted, 0)]
    kept = [instance for instance in current if instance not in end]
    end += _replaced(model, kept, older, wanted, snapshot)
    left = len(alive) - len(end)
    # One at a time: none is added beside the wish while a new one has still to prove itself.
    proven = all(instance.state in SERVING for instance in kept)
    allowed = wanted + (SURGE if proven and left > len(kept) else 0)
    create = max(min(wanted - len(kept), allowed - left), 0)
    return ReplicaPlan(create=create, end=tuple(instance.id for instance in end))


def on_drained(instance: ModelInstance, snapshot: Snapshot) -> bool:
    """Whether one of its workers is to be emptied."""
    worker = snapshot.workers.get(instance.worker_id or 0)
    shares = () if instance.placement is None else instance.placement.subordinates
    further = (snapshot.workers.get(share.worker_id) for share in shares)
    return any(one is not None and one.draining for one in (worker, *further))


def waits_for_room(instance: ModelInstance) -> bool:
    """The scheduler found that it would fit if an older replica of its model went."""
    return instance.state is InstanceState.PENDING and MAKES_ROOM in instance.state_message


def _replaced(
    model: Model, current: list[ModelInstance], older: list[ModelInstance], wanted: int, snapshot: Snapshot
) -> list[ModelInstance]:
    """Those of ``older`` that are not needed any more, or must make room."""
    # Unreachable is not dead: it may serve again at any moment, so it counts as one that serves.
    idle = [i for i in older if i.state not in SERVING and i.state is not InstanceState.UNREACHABLE]
    serving = [instance for instance in older if instance not in idle]
    ready = sum(instance.state in SERVING for instance in current)
    surplus = max(ready + len(serving) - wanted, 0)
    crowded = len(current) + len(serving) > wanted
    if not surplus and serving and crowded and any(waits_for_room(instance) for instance in current):
        surplus = 1
    return [*idle, *victims(model, serving, snapshot)[:surplus]]

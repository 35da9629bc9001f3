"""How many replicas of a model to create and which to end, so that as many run as it asks for, of its generation."""

from __future__ import annotations

from datetime import datetime

import attrs

from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.lifecycle import SERVING, InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import WorkerState

from .eviction import has_no_place, is_evicted, on_drained
from .placement import MAKES_ROOM, PlacementRequest
from .scores import spread
from .seat import seated

SURGE = 1
"""Replicas beyond ``model.replicas`` while a new generation takes over."""


@attrs.frozen(kw_only=True)
class ReplicaPlan:
    """How many replicas to ``create``, and the ids of those to ``end``, the least useful first."""

    create: int = 0
    end: tuple[int, ...] = ()


def replica_plan(
    model: Model, instances: list[ModelInstance], snapshot: Snapshot, now: datetime | None = None
) -> ReplicaPlan:
    """What to do now. Once that is done, the answer is an empty plan until something else has changed.

    A new generation takes over one replica at a time: a new one is created, and when it serves an old one ends. If the
    new one finds no room beside the old, an old one ends first. Replicas on a drained worker are replaced likewise, and
    those that a taint evicts: these end as well where no new one finds a place. Without ``now`` nothing is evicted that
    is tolerated for a time.
    """
    alive = [instance for instance in instances if instance.deleted_at is None]
    evicted = [i for i in alive if is_evicted(model, i, snapshot, now)]
    older = [i for i in alive if i.generation < model.generation or i in evicted or on_drained(i, snapshot)]
    current = [instance for instance in alive if instance not in older]
    wanted = max(model.replicas, 0)
    surplus = max(len(current) - wanted, 0)
    end = victims(model, current, snapshot)[:surplus] if surplus else []  # to rate them costs
    kept = [instance for instance in current if instance not in end]
    # What ends already makes room: what is said to be short was said before.
    is_crowded = any(map(waits_for_room, kept)) and not any(
        one.deleted_at and one.placement for one in instances
    )
    end += _replaced(model, kept, older, evicted, snapshot, is_crowded=is_crowded)
    left = len(alive) - len(end)
    # One at a time: none is added beyond what is asked for while a new one does not serve yet.
    proven = all(instance.state in SERVING for instance in kept)
    allowed = wanted + (SURGE if proven and left > len(kept) else 0)
    create = max(min(wanted - len(kept), allowed - left), 0)
    return ReplicaPlan(create=create, end=tuple(instance.id for instance in end))


def waits_for_room(instance: ModelInstance) -> bool:
    """Whether the scheduler has found that it fits once an older replica of its model is gone."""
    return instance.state is InstanceState.PENDING and MAKES_ROOM in instance.state_message


def _replaced(
    model: Model,
    current: list[ModelInstance],
    older: list[ModelInstance],
    evicted: list[ModelInstance],
    snapshot: Snapshot,
    *,
    is_crowded: bool,
) -> list[ModelInstance]:
    """Those of ``older`` that are not needed any more, or must make room for a new one."""
    wanted = max(model.replicas, 0)
    # An unreachable replica may serve again at any moment, so it counts as one that serves.
    idle = [i for i in older if i.state not in SERVING and i.state is not InstanceState.UNREACHABLE]
    serving = [instance for instance in older if instance not in idle]
    ready = sum(instance.state in SERVING for instance in current)
    surplus = max(ready + len(serving) - wanted, 0)
    if not surplus and serving and is_crowded and len(current) + len(serving) > wanted:
        surplus = 1
    ordered = victims(model, serving, snapshot)
    leaving = [i for i in ordered if i in evicted]
    if leaving and any(has_no_place(instance) for instance in current):
        surplus = max(surplus, 1)
        ordered = [*leaving, *(i for i in ordered if i not in leaving)]
    return [*idle, *ordered[:surplus]]


def victims(model: Model, instances: list[ModelInstance], snapshot: Snapshot) -> list[ModelInstance]:
    """The least useful first: not working, then little on devices, then crowded, then youngest."""
    return sorted(instances, key=lambda instance: (worth(model, instance, snapshot), -instance.id))


def worth(model: Model, instance: ModelInstance, snapshot: Snapshot) -> float:
    """0 to 100: whether it works counts most, then how much of it is on devices, then how its worker is spread."""
    return (
        _state(instance, snapshot) * 100 + _offload(instance) * 10 + _place(model, instance, snapshot)
    ) / 111


def _state(instance: ModelInstance, snapshot: Snapshot) -> float:
    workers = [snapshot.workers.get(key) for key in workers_of(instance)]
    lost = any(worker is None or worker.condition.state is not WorkerState.READY for worker in workers)
    if lost or not workers or instance.state is InstanceState.ERROR:
        return 0.0
    return 100.0 if instance.state is InstanceState.RUNNING else 50.0


def _offload(instance: ModelInstance) -> float:
    claim = None if instance.placement is None else instance.placement.claim
    if claim is None or not claim.total_layers or claim.offload_layers is None:
        return 0.0
    return claim.offload_layers / claim.total_layers * 100


def _place(model: Model, instance: ModelInstance, snapshot: Snapshot) -> float:
    seat = None if instance.placement is None else seated(instance.placement, snapshot)
    if seat is None:
        return 0.0
    return spread.score(seat, PlacementRequest(model=model, instance=instance, engine_name=""), snapshot)

"""What a drain of workers leads to: where each instance there would go, found by reconciling and placing on a snapshot
in which the workers are drained, as if whatever is placed soon ran."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from enum import StrEnum

import attrs

from gpustack.domain.instance import ModelInstance, Placement, workers_of
from gpustack.domain.lifecycle import SERVING, InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker

from .eviction import on_drained
from .placement import PlacementRequest, Unschedulable
from .preemption import above, preempt
from .reconcile import replica_plan
from .schedule import place

Ask = Callable[[Model, ModelInstance], PlacementRequest | str]
"""The request to place an instance, or the sentence why there cannot be one."""

_WAITING = (InstanceState.PENDING, InstanceState.ANALYZING)


class DrainWay(StrEnum):
    """How an instance leaves a drained worker."""

    REPLACED_FIRST = "replaced_first"
    """Another is made ready elsewhere, then it ends."""
    ENDS_FIRST = "ends_first"
    """It ends, then another starts elsewhere: it serves nobody, or its going makes the room."""
    NOT_REPLACED = "not_replaced"
    """It ends: there are more replicas than are asked for."""
    STAYS = "stays"
    """It goes on there."""


@attrs.frozen(kw_only=True)
class DrainMove:
    """What comes of one instance. ``placement`` is where its replacement runs; ``None`` where it has no place, and then
    ``why`` says why. ``ends`` are the instances of lower priority that make room for that."""

    instance_id: int
    instance: str
    model: str
    way: DrainWay
    placement: Placement | None = None
    ends: tuple[str, ...] = ()
    why: str = ""


@attrs.frozen(kw_only=True)
class DrainPlan:
    """The moves in their order, and the snapshot once all are made, in which new instances have new ids."""

    moves: tuple[DrainMove, ...]
    after: Snapshot = attrs.field(eq=False, repr=False)


@attrs.frozen(kw_only=True)
class DrainProgress:
    """How many instances are left of those that were there when the drain began (``None``: not known), which, and what
    their replacements wait for."""

    of: int | None
    left: tuple[str, ...]
    waits_for: tuple[str, ...] = ()


def drain_plan(worker_ids: Collection[int], snapshot: Snapshot, ask: Ask) -> DrainPlan:
    """What comes of each instance on the workers. Models go on one replica at a time each, those of the highest
    priority first."""
    gone = frozenset(worker_ids)
    drained = (attrs.evolve(w, cordoned=True, draining=True) for w in map(snapshot.workers.get, gone) if w)
    there = list(instances_on(gone, snapshot))
    known = (snapshot.models.get(key) for key in {instance.model_id for instance in there})
    models = sorted((one for one in known if one is not None), key=lambda model: (-model.priority, model.id))
    course = _Course(snapshot.changed(*drained), ask, max(snapshot.instances, default=0) + 1)
    # Each turn that changes anything ends or places one instance at least.
    for _ in range(2 * len(snapshot.instances) + 2 * len(there) + 2):
        if not [model for model in models if course.turn(model)]:
            break
    ended = {key: number for number, key in enumerate(course.ended)}
    there.sort(key=lambda instance: (ended.get(instance.id, len(ended)), instance.id))
    return DrainPlan(moves=tuple(course.move_of(one) for one in there), after=course.snapshot)


def instances_on(worker_ids: Collection[int], snapshot: Snapshot) -> Iterator[ModelInstance]:
    """Those that have a member on one of the workers and are not being ended, the oldest first."""
    wanted = frozenset(worker_ids)
    found = {one.id: one for key in wanted for one, _ in snapshot.claims_on(key) if one.deleted_at is None}
    return (found[key] for key in sorted(found) if workers_of(found[key]) & wanted)


def drain_progress(worker: Worker, snapshot: Snapshot) -> DrainProgress:
    """How far the drain of a worker is."""
    there = {one.id: one for one, _ in snapshot.claims_on(worker.id) if worker.id in workers_of(one)}
    told: dict[str, list[str]] = {}
    for model_id in sorted({one.model_id for one in there.values()}):
        for one in snapshot.instances_of(model_id):
            if one.id not in there and one.deleted_at is None and one.state not in SERVING:
                told.setdefault(_awaited(one), []).append(one.name)
    return DrainProgress(
        of=worker.drain_total,
        left=tuple(sorted(one.name for one in there.values())),
        waits_for=tuple(f"{', '.join(names)}: {what}" for what, names in told.items()),
    )


def _awaited(instance: ModelInstance) -> str:
    state = instance.state.value
    return f"{state}: {instance.state_message}" if instance.state_message else state


@attrs.define(eq=False)
class _Course:
    """A drain as it goes on, in a snapshot of its own."""

    snapshot: Snapshot
    _ask: Ask
    _next_id: int
    ended: list[int] = attrs.field(factory=list)
    """Ids, in the order in which they end."""
    _leavers: dict[int, list[tuple[int, int]]] = attrs.field(factory=dict)
    """By model: each that ended, and how many replacements had a place before."""
    _places: dict[int, list[tuple[Placement, tuple[str, ...]]]] = attrs.field(factory=dict)
    """By model: where replacements are placed, in their order, and who ends for each."""

    def turn(self, model: Model) -> bool:
        """Let the model go on as far as it does before others change; true if anything did."""
        started = self._start(model)
        instances = self.snapshot.instances_of(model.id)
        plan = replica_plan(model, instances, self.snapshot)
        for one in instances:
            if one.id in plan.end:
                self.ended.append(one.id)
                if on_drained(one, self.snapshot):
                    before = len(self._places.get(model.id, ()))
                    self._leavers.setdefault(model.id, []).append((one.id, before))
        if plan.end:
            self.snapshot = self.snapshot.changed(without=plan.end)
        for _ in range(plan.create):
            self._create(model)
        placed = [self._place(model, one) for one in self.snapshot.instances_of(model.id) if _waits(one)]
        return started or bool(plan.end) or plan.create > 0 or any(placed)

    def _start(self, model: Model) -> bool:
        """Have run what is on its way on workers that stay."""
        on_its_way = [
            attrs.evolve(one, state=InstanceState.RUNNING)
            for one in self.snapshot.instances_of(model.id)
            if one.placement is not None
            and one.deleted_at is None
            and one.state not in (*SERVING, InstanceState.ERROR, InstanceState.UNREACHABLE)
            and not on_drained(one, self.snapshot)
        ]
        if on_its_way:
            self.snapshot = self.snapshot.changed(*on_its_way)
        return bool(on_its_way)

    def _create(self, model: Model) -> None:
        key = self._next_id
        self._next_id += 1
        made = ModelInstance(
            id=key,
            name=f"{model.name}-new-{key}",
            model_id=model.id,
            model_name=model.name,
            source=model.source,
            generation=model.generation,
        )
        self.snapshot = self.snapshot.changed(made)

    def _place(self, model: Model, waiting: ModelInstance) -> bool:
        """Place one that waits; true if its state or what it says has changed."""
        request = self._ask(model, waiting)
        found = request if isinstance(request, str) else place(request, above(model.priority, self.snapshot))
        made = None
        if isinstance(found, Unschedulable) and isinstance(request, PlacementRequest):
            made = preempt(request, self.snapshot)
        if made is not None:
            found = made.placement
            gone = {one.id for one in (*made.victims, *made.awaited)}
            self.snapshot = self.snapshot.changed(without=gone)
        if isinstance(found, Placement):
            ends = () if made is None else tuple(one.name for one in made.victims)
            self._places.setdefault(model.id, []).append((found, ends))
            self.snapshot = self.snapshot.changed(attrs.evolve(waiting, placement=found, reserved=None))
            return True
        told = attrs.evolve(waiting, state_message=found if isinstance(found, str) else found.sentence)
        self.snapshot = self.snapshot.changed(told)
        return told.state_message != waiting.state_message

    def move_of(self, instance: ModelInstance) -> DrainMove:
        """What has come of an instance that was there."""
        move = DrainMove(
            instance_id=instance.id,
            instance=instance.name,
            model=instance.model_name,
            way=DrainWay.STAYS,
            why=self._obstacle(instance.model_id),
        )
        leavers = self._leavers.get(instance.model_id, [])
        for number, (key, before) in enumerate(leavers):
            if key != instance.id:
                continue
            places = self._places.get(instance.model_id, [])
            if number < len(places):
                way = DrainWay.REPLACED_FIRST if number < before else DrainWay.ENDS_FIRST
                placement, ends = places[number]
                return attrs.evolve(move, way=way, placement=placement, ends=ends, why="")
            way = DrainWay.ENDS_FIRST if move.why else DrainWay.NOT_REPLACED
            return attrs.evolve(move, way=way)
        return move

    def _obstacle(self, model_id: int) -> str:
        """Why a further replica of the model does not run elsewhere; empty if nothing is against it."""
        for one in self.snapshot.instances_of(model_id):
            if one.deleted_at is None and not on_drained(one, self.snapshot) and one.state not in SERVING:
                return one.state_message if _waits(one) else f"{one.name} is {_awaited(one)}"
        return ""


def _waits(instance: ModelInstance) -> bool:
    return instance.placement is None and instance.deleted_at is None and instance.state in _WAITING

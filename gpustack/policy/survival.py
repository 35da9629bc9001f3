"""Which models survive the loss of one worker: what ran there is placed elsewhere, or not."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection

import attrs

from gpustack.domain.instance import ModelInstance, Placement, workers_of
from gpustack.domain.lifecycle import SERVING
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker

from .decision import decide, decide_alone, impossibilities
from .look import looks_of
from .placement import PlacementRequest
from .preemption import preempt, priority_of
from .what_if import unplaced, without_workers
from .worker_class import unsorted_alike

Ask = Callable[[Model, ModelInstance, Snapshot], PlacementRequest | str | None]
"""The request to place an instance, the sentence why there cannot be one, or ``None`` where what the model needs is not
known yet."""

_MOST_ROOMS = 48
"""Workers with room for a model that are counted at most."""


@attrs.frozen(kw_only=True)
class ModelLoss:
    """How many replicas of a model that serve would be lost for good, and how many would be left or come back."""

    model_id: int
    model: str
    lost: int
    left: int


@attrs.frozen(kw_only=True)
class WorkerLoss:
    """What the loss of a worker would do to models that serve. ``stops``: nothing of them would serve any more.
    ``shrinks``: they would have fewer replicas. ``keeps``: all come back elsewhere. ``unknown`` are names of models of
    which it is not known."""

    worker_id: int
    worker: str
    stops: tuple[ModelLoss, ...] = ()
    shrinks: tuple[ModelLoss, ...] = ()
    keeps: tuple[ModelLoss, ...] = ()
    unknown: tuple[str, ...] = ()


@attrs.define(eq=False)
class Rooms:
    """On which workers of a snapshot one more replica of each model fits alone, found out once for all losses.

    A replica that is placed elsewhere changes one worker. So it finds a place for sure if as many workers have room for
    it as replicas need one, and then nothing needs to be tried.
    """

    snapshot: Snapshot
    _ask: Ask
    _known: dict[int, frozenset[int] | None] = attrs.field(factory=dict)

    def of(self, model: Model, instance: ModelInstance) -> frozenset[int] | None:
        """Ids of up to ``_MOST_ROOMS`` workers on which it would be placed before it is divided among several; ``None``
        where that is not known, or may change with what is placed on others."""
        if model.id not in self._known:
            request = self._ask(model, unplaced(instance), self.snapshot)
            self._known[model.id] = None if request is None else self._found(request)
        return self._known[model.id]

    def _found(self, request: PlacementRequest | str) -> frozenset[int] | None:
        if isinstance(request, str) or impossibilities(request):
            return frozenset()
        looks = looks_of(request, self.snapshot)
        if looks is None:
            return None
        found: set[int] = set()
        for group in unsorted_alike(request, self.snapshot):
            place = decide_alone(group[0], looks, self.snapshot)
            if isinstance(place, Placement) and (not _may_divide(request.model) or _is_whole(place)):
                found.update(worker.id for worker in group[:_MOST_ROOMS])
                if len(found) >= _MOST_ROOMS:
                    break
        return frozenset(found)


def loss_of(worker_id: int, snapshot: Snapshot, ask: Ask, rooms: Rooms | None = None) -> WorkerLoss:
    """What would become of the models that run on a worker: its instances are placed elsewhere one by one, those of the
    highest priority first, as far as there is room.

    With the ``rooms`` of the snapshot it costs little unless room is scarce; without, a decision for each instance.
    """
    worker = snapshot.workers[worker_id]
    there = [
        one
        for one in {one.id: one for one, _ in snapshot.claims_on(worker_id)}.values()
        if one.deleted_at is None and worker_id in workers_of(one)
    ]
    if not there:
        return WorkerLoss(worker_id=worker_id, worker=worker.name)
    out = None if rooms is None else _surely_out(worker_id, there, snapshot, rooms)
    if out is not None:
        return _told(worker, snapshot, out, {one.model_id for one in there}, frozenset())
    removal = _Removal(without_workers(snapshot, {worker_id}), ask)
    for one in there:
        removal.displace(one)
    removal.place_all()
    return _told(worker, snapshot, removal.out, removal.touched, removal.unknown)


def _surely_out(
    worker_id: int, there: list[ModelInstance], snapshot: Snapshot, rooms: Rooms
) -> set[int] | None:
    """The ids of the instances that find no other place; ``None`` where that depends on where others go."""
    if any(one.anti_affinity is not None for one in snapshot.models.values()):
        return None
    out: set[int] = set()
    placed: list[int] = []
    for one in there:
        model = snapshot.models.get(one.model_id)
        if model is None or len(workers_of(one)) > 1:
            return None  # a gang leaves room on other workers
        found = rooms.of(model, one)
        if found is None:
            return None
        count = len(found - {worker_id})
        if count:
            placed.append(count)
        elif model.preempts or _may_divide(model):
            return None
        else:
            out.add(one.id)
    return out if all(count >= len(placed) for count in placed) else None


def _may_divide(model: Model) -> bool:
    return model.distributed_inference_across_workers is not False


def _is_whole(place: Placement) -> bool:
    """Whether it is all on the devices of one worker: that is tried before several workers are."""
    claim = place.claim
    return bool(place.gpu_indexes) and claim.offload_layers == claim.total_layers


def _told(
    worker: Worker,
    snapshot: Snapshot,
    out: Collection[int],
    touched: Collection[int],
    unread: Collection[int],
) -> WorkerLoss:
    losses = [one for key in sorted(touched) if (one := _loss(key, snapshot, out)) is not None]
    unknown = {snapshot.models[key].name for key in unread}
    known = [one for one in losses if one.model not in unknown]
    return WorkerLoss(
        worker_id=worker.id,
        worker=worker.name,
        stops=tuple(one for one in known if not one.left),
        shrinks=tuple(one for one in known if one.left and one.lost),
        keeps=tuple(one for one in known if not one.lost),
        unknown=tuple(sorted(unknown)),
    )


def _loss(model_id: int, before: Snapshot, out: Collection[int]) -> ModelLoss | None:
    model = before.models.get(model_id)
    serving = [
        one.id for one in before.instances_of(model_id) if one.state in SERVING and one.deleted_at is None
    ]
    if model is None or not serving:
        return None
    left = sum(key not in out for key in serving)
    return ModelLoss(model_id=model_id, model=model.name, lost=len(serving) - left, left=left)


@attrs.define(eq=False)
class _Removal:
    """The cluster without the worker, while its instances are placed anew."""

    snapshot: Snapshot
    _ask: Ask
    out: set[int] = attrs.field(factory=set)
    """Ids of the instances that have no place."""
    touched: set[int] = attrs.field(factory=set)
    unknown: set[int] = attrs.field(factory=set)
    _queue: list[tuple[int, int]] = attrs.field(factory=list)
    _refused: set[int] = attrs.field(factory=set)
    """Models of which one found no place: what is free only shrinks, so that others of it find none either."""

    def displace(self, instance: ModelInstance) -> None:
        self.out.add(instance.id)
        self.touched.add(instance.model_id)
        heapq.heappush(self._queue, (-priority_of(instance, self.snapshot), instance.id))

    def place_all(self) -> None:
        while self._queue:
            _, key = heapq.heappop(self._queue)
            instance = self.snapshot.instances[key]
            model = self.snapshot.models.get(instance.model_id)
            if model is not None and model.id not in self._refused:
                self._place(model, instance)

    def _place(self, model: Model, instance: ModelInstance) -> None:
        request = self._ask(model, instance, self.snapshot)
        if request is None:
            self.unknown.add(model.id)
            return
        found = None if isinstance(request, str) else self._found(request)
        if found is None:
            self._refused.add(model.id)
            return
        self.out.discard(instance.id)
        self.snapshot = self.snapshot.changed(attrs.evolve(instance, placement=found))

    def _found(self, request: PlacementRequest) -> Placement | None:
        found = decide(request, self.snapshot)
        if isinstance(found, Placement):
            return found
        made = preempt(request, self.snapshot)
        if made is None or made.awaited:
            return None
        for victim in made.victims:
            self.snapshot = self.snapshot.changed(unplaced(victim))
            self.displace(victim)
        self._refused -= self.touched
        return made.placement

"""Which instances of lower priority end so that one of a model that may ask for it fits: never more than it takes.

What counts is that it fits as its deployment allows: one that must not run on the CPU says so. Of several choices that
one is taken in which the highest priority that ends is the lowest, then which ends the fewest, then those that serve
nobody yet, then the youngest. It is found greedily, never by trying combinations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import attrs

from gpustack.domain.instance import Claim, ModelInstance, Placement, claims_of, place_of
from gpustack.domain.lifecycle import SERVING
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker

from .decision import decide
from .placement import PlacementRequest
from .standing import standing_of
from .worker_class import alike

_MOST_CLASSES = 64
"""Among how many kinds of workers, the most promising, it is looked for a place."""
_MOST_TRIED = 8
"""On how many of those where it would fit the instances that must end are found out."""
_LISTED = 4
_SOON = datetime(1, 1, 1, tzinfo=UTC)
"""When an instance ends of which that is only supposed."""


@attrs.frozen(kw_only=True)
class Preemption:
    """The place that is kept for an instance, those that have to end for it, and those there that end already."""

    request: PlacementRequest = attrs.field(repr=False)
    placement: Placement
    victims: tuple[ModelInstance, ...] = ()
    awaited: tuple[ModelInstance, ...] = ()

    @property
    def instance(self) -> ModelInstance:
        """Who gets the place."""
        assert self.request.instance is not None
        return self.request.instance

    @property
    def is_kept(self) -> bool:
        """Whether nothing is to be done but to wait: the place, or one as large on the same workers, is kept for it."""
        reserved = self.instance.reserved
        is_same = reserved is not None and claims_of(reserved) == claims_of(self.placement)
        return is_same and not self.victims

    def sentence(self, snapshot: Snapshot) -> str:
        """What the instance waits for."""
        ends, priority = (*self.victims, *self.awaited), self.request.model.priority
        lower = all(priority_of(one, snapshot) < priority for one in ends)
        what = "1 instance" if len(ends) == 1 else f"{len(ends)} instances"
        names = ", ".join(one.name for one in ends[:_LISTED])
        more = f" and {len(ends) - _LISTED} more" if len(ends) > _LISTED else ""
        there = sorted(set[int]().union(*map(_workers_of, ends)))
        where = ", ".join(_name_of(key, snapshot) for key in there)
        return f"Waits for {what}{' of lower priority' if lower else ''} to end on {where}: {names}{more}"

    def carried_out(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot in which the place is kept, and those that have to end are ending."""
        if self.is_kept:
            return snapshot
        ends = (attrs.evolve(one, deleted_at=_SOON) for one in self.victims)
        return snapshot.changed(attrs.evolve(self.instance, reserved=self.placement), *ends)


def title(model: Model) -> str:
    """The model as those that make room for it name it."""
    return f"model {model.name} (priority {model.priority})"


def priority_of(instance: ModelInstance, snapshot: Snapshot) -> int:
    """That of its model; 0 where the model is gone."""
    model = snapshot.models.get(instance.model_id)
    return 0 if model is None else model.priority


def preempt(request: PlacementRequest, snapshot: Snapshot) -> Preemption | None:
    """How an instance that fits nowhere comes to a place; ``None`` where its model does not ask for that, or it would
    not help.

    What is ending counts as gone: while that is enough, nothing more ends. A place that is kept for it already is kept
    as long as it will do.
    """
    if not request.model.preempts:
        return None
    ending, rest = _rest(request, snapshot)
    place = _kept(request, rest) or (_place(request, rest) if ending else None)
    if place is not None:
        return Preemption(request=request, placement=place, awaited=_awaited(request, place, ending, rest))
    victims = _Search(request, rest).victims()
    if victims is None:
        return None
    cleared = rest.changed(without={one.id for one in victims})
    place = _place(request, cleared)
    assert place is not None  # that is how they were found
    awaited = _awaited(request, place, ending, cleared)
    return Preemption(request=request, placement=place, victims=tuple(victims), awaited=awaited)


def confirmed(preemption: Preemption, snapshot: Snapshot) -> Preemption | None:
    """The same in a newer snapshot; ``None`` where it is to be decided anew. Only the workers of the place are looked
    at."""
    request = preemption.request
    ending, rest = _rest(request, snapshot)
    victims = [rest.instances.get(one.id) for one in preemption.victims]
    allowed = [one for one in victims if one is not None and _may_end(one, request, rest)]
    there = {key for key, _ in claims_of(preemption.placement)}
    if len(allowed) < len(victims) or not there <= rest.workers.keys():
        return None
    among = [rest.workers[key] for key in sorted(there)]
    ids = {one.id for one in allowed}
    cleared = rest.changed(without=ids)
    place = _place(request, cleared, among)
    if place is None or any(_place(request, rest.changed(without=ids - {key}), among) for key in sorted(ids)):
        return None
    awaited = _awaited(request, place, ending, cleared)
    return attrs.evolve(preemption, placement=place, victims=tuple(allowed), awaited=awaited)


def _rest(request: PlacementRequest, snapshot: Snapshot) -> tuple[list[ModelInstance], Snapshot]:
    """What is ending, the oldest first, and the snapshot without it, as the request sees it."""
    view = above(request.model.priority, snapshot)
    ends = sorted(
        (one for one in view.instances.values() if one.deleted_at is not None and one.placement),
        key=lambda one: one.id,
    )
    return ends, view.changed(without={one.id for one in ends}) if ends else view


def above(priority: int, snapshot: Snapshot) -> Snapshot:
    """The snapshot as those of a priority see it: places that are kept for lower ones are not kept from them."""
    lesser = [one for one in reservations(snapshot) if priority_of(one, snapshot) < priority]
    return snapshot.changed(*(attrs.evolve(one, reserved=None) for one in lesser)) if lesser else snapshot


def reservations(snapshot: Snapshot) -> Iterator[ModelInstance]:
    """The instances for which a place is kept."""
    return (snapshot.instances[key] for key in sorted(snapshot.claims.kept))


def explained(request: PlacementRequest, snapshot: Snapshot) -> str:
    """What an instance that fits nowhere has to do with those that end for others; empty if nothing. ``request`` is
    for an instance."""
    assert request.instance is not None
    made, told = preempt(request, snapshot), []
    if request.instance.displaced_by:
        told.append(f"Made room for {request.instance.displaced_by}")
    if made is not None:
        told.append(made.sentence(snapshot))
    elif request.model.preempts:
        told.append("All that may end for it, being of lower priority, would not make enough room")
    kept = [
        one for one in reservations(above(request.model.priority, snapshot)) if one is not request.instance
    ]
    if kept and made is None:
        names = ", ".join(one.name for one in kept[:_LISTED])
        more = f" and {len(kept) - _LISTED} more" if len(kept) > _LISTED else ""
        told.append(f"What ends makes room for {names}{more}, of a priority no lower than its own")
    return ". ".join(told)


def standing(snapshot: Snapshot) -> object:
    """All on which it depends who may end for whom, beside what placement depends on."""
    return tuple((one.id, one.priority, one.preemptible) for one in snapshot.models.values())


def _kept(request: PlacementRequest, rest: Snapshot) -> Placement | None:
    """The place that is kept for it, if it will do."""
    reserved = None if request.instance is None else request.instance.reserved
    if reserved is None:
        return None
    there = {key for key, _ in claims_of(reserved)}
    if not there <= rest.workers.keys():
        return None
    return _place(request, rest, [rest.workers[key] for key in sorted(there)])


def _place(
    request: PlacementRequest, snapshot: Snapshot, among: Iterable[Worker] | None = None
) -> Placement | None:
    found = decide(request, snapshot, among=among)
    return found if isinstance(found, Placement) else None


def _awaited(
    request: PlacementRequest, place: Placement, ending: Sequence[ModelInstance], rest: Snapshot
) -> tuple[ModelInstance, ...]:
    """Those of what is ending, and not in ``rest``, that the place waits for."""
    if not ending:
        return ()
    among = _workers(place, rest)
    return tuple(_in_the_way(request, rest.changed(*ending), {one.id: one for one in ending}, among))


def _in_the_way(
    request: PlacementRequest,
    snapshot: Snapshot,
    candidates: Mapping[int, ModelInstance],
    among: Sequence[Worker],
) -> list[ModelInstance]:
    """Of the candidates those on these workers, and those elsewhere that an anti-affinity keeps apart from a place
    there, such as in the same zone."""
    named = {one.name: key for key, one in candidates.items()}
    there = {one.id for worker in among for one, _ in snapshot.claims_on(worker.id)} & candidates.keys()
    while True:
        standing = standing_of(request, snapshot.changed(without=there))
        beside = (standing.of(worker.id).beside for worker in among)
        apart = {named[one.name] for one in beside if one is not None and one.name in named}
        if not apart:
            return [one for key, one in candidates.items() if key in there]
        there |= apart


def _may_end(instance: ModelInstance, request: PlacementRequest, snapshot: Snapshot) -> bool:
    model = snapshot.models.get(instance.model_id)
    if model is None or instance.placement is None or instance.deleted_at is not None:
        return False
    return model.preemptible and model.priority < request.model.priority


def _workers_of(instance: ModelInstance) -> set[int]:
    place = place_of(instance)
    return set() if place is None else {key for key, _ in claims_of(place)}


def _name_of(worker_id: int, snapshot: Snapshot) -> str:
    worker = snapshot.workers.get(worker_id)
    return str(worker_id) if worker is None else worker.name


Harm = tuple[int, int, int, int, tuple[int, ...]]
_Level = tuple[Mapping[int, ModelInstance], Snapshot, Placement]
"""Those that end up to a priority, the snapshot without them, and a place there."""


@attrs.define(eq=False)
class _Search:
    """Looks for those that have to end, in a snapshot without what is ending already."""

    request: PlacementRequest
    rest: Snapshot
    lower: Mapping[int, ModelInstance] = attrs.field(init=False)
    priorities: Mapping[int, int] = attrs.field(init=False)
    """Of those, by their ids."""

    def __attrs_post_init__(self) -> None:
        every = self.rest.instances.values()
        self.lower = {one.id: one for one in every if _may_end(one, self.request, self.rest)}
        self.priorities = {key: priority_of(one, self.rest) for key, one in self.lower.items()}

    def victims(self) -> Sequence[ModelInstance] | None:
        """The least harmful of the choices that were found; ``None`` if it fits nowhere whatever ends."""
        level = self._level()
        if level is None:
            return None
        candidates, cleared, found = level
        choices = [self._least(candidates, _workers(found, cleared))]
        tried = 0
        for worker in self._promising(candidates, cleared, found):
            if tried == _MOST_TRIED:
                break
            if _place(self.request, cleared, (worker,)) is not None:
                tried += 1
                choices.append(self._least(candidates, (worker,)))
        best = min(choices, key=self._harm)
        return self._needed(best)

    def _level(self) -> _Level | None:
        """What comes of it when all up to the lowest priority end with which it fits. What fits when those up to one
        priority end fits when those up to a higher one do."""
        levels = sorted(set(self.priorities.values()))
        first, last = 0, len(levels) - 1
        found: _Level | None = None
        # The lowest is tried first, for it is mostly enough, and each try looks at all workers anew.
        middle = 0
        while first <= last:
            tried = self._up_to(levels[middle])
            if tried is None:
                first = middle + 1
            else:
                found, last = tried, middle - 1
            middle = last if found is None else (first + last) // 2
        return found

    def _up_to(self, level: int) -> _Level | None:
        candidates = {key: self.lower[key] for key, priority in self.priorities.items() if priority <= level}
        cleared = self.rest.changed(without=candidates.keys())
        found = _place(self.request, cleared)
        return None if found is None else (candidates, cleared, found)

    def _promising(
        self, candidates: Mapping[int, ModelInstance], cleared: Snapshot, found: Placement
    ) -> Iterator[Worker]:
        """Workers that hold candidates, one of all that are the same to it; those first on which the least harm is to
        be expected if it needs as much as at the place that was found."""
        need = sum(_size(claim) for _, claim in claims_of(found))
        ranked: dict[object, tuple[Harm, int, Worker]] = {}
        for number, group in enumerate(alike(self.request, cleared)):
            for worker in group:
                held = [
                    candidates[one.id] for one, _ in self.rest.claims_on(worker.id) if one.id in candidates
                ]
                if not held:
                    continue
                expected = self._expected(held, worker, need)
                profile = (
                    number,
                    tuple(sorted((self._priority(one), *_sizes(one, worker.id)) for one in held)),
                )
                rank = (self._harm(expected), worker.id, worker)
                if profile not in ranked or rank[:2] < ranked[profile][:2]:
                    ranked[profile] = rank
        best = sorted(ranked.values(), key=lambda one: one[:2])
        return (worker for _, _, worker in best[:_MOST_CLASSES])

    def _expected(self, held: list[ModelInstance], worker: Worker, need: int) -> list[ModelInstance]:
        free = self.rest.free(worker, without=self.request.own_id)
        left = need - (free.ram or 0) - sum(free.vram.values())
        ends: list[ModelInstance] = []
        for one in sorted(held, key=lambda one: (self._priority(one), -sum(_sizes(one, worker.id)), -one.id)):
            if left <= 0 and ends:
                break
            ends.append(one)
            left -= sum(_sizes(one, worker.id))
        return ends

    def _least(self, candidates: Mapping[int, ModelInstance], among: Sequence[Worker]) -> list[ModelInstance]:
        """Of the candidates on these workers, on which it fits once all are gone, those that have to end."""
        held = _in_the_way(self.request, self.rest, candidates, among)
        orders = (
            sorted(held, key=lambda one: (-self._priority(one), _whole(one), one.id)),
            sorted(held, key=lambda one: (-self._priority(one), one.state not in SERVING, one.id)),
        )
        first = self._spared(orders[0], held, among)
        return first if len(first) < 2 else min(first, self._spared(orders[1], held, among), key=self._harm)

    def _spared(
        self, order: Iterable[ModelInstance], held: Iterable[ModelInstance], among: Sequence[Worker] | None
    ) -> list[ModelInstance]:
        """Of those held, without each that, in this order, need not end."""
        gone = {one.id: one for one in held}
        for one in order:
            without = gone.keys() - {one.id}
            if _place(self.request, self.rest.changed(without=without), among) is not None:
                del gone[one.id]
        return list(gone.values())

    def _needed(self, victims: list[ModelInstance]) -> list[ModelInstance]:
        """The same without those that need not end now that all workers are looked at: a gang makes room on several."""
        order = sorted(victims, key=lambda one: (-self._priority(one), one.id))
        return self._spared(order, victims, None) if len(victims) > 1 else victims

    def _priority(self, instance: ModelInstance) -> int:
        return self.priorities[instance.id]

    def _harm(self, victims: Collection[ModelInstance]) -> Harm:
        priorities = [self._priority(one) for one in victims]
        serving = sum(one.state in SERVING for one in victims)
        youngest = tuple(sorted(-one.id for one in victims))
        return max(priorities, default=-(1 << 31)), len(victims), sum(priorities), serving, youngest


def _workers(placement: Placement, snapshot: Snapshot) -> list[Worker]:
    return [snapshot.workers[key] for key in sorted({key for key, _ in claims_of(placement)})]


def _sizes(instance: ModelInstance, worker_id: int) -> tuple[int, int]:
    """Bytes that it holds on a worker: of the host, of devices."""
    place = place_of(instance)
    there = [] if place is None else [claim for key, claim in claims_of(place) if key == worker_id]
    return sum(claim.ram for claim in there), sum(sum(claim.vram.values()) for claim in there)


def _whole(instance: ModelInstance) -> int:
    place = place_of(instance)
    return 0 if place is None else sum(_size(claim) for _, claim in claims_of(place))


def _size(claim: Claim) -> int:
    return claim.ram + sum(claim.vram.values())

"""What a request finds on one worker: an objection, or what each way to fit offers there. Kept for the next request of
its kind, for as long as nothing changes on that worker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from heapq import heapify, heappop
from operator import attrgetter
from types import ModuleType

import attrs

from gpustack.domain.instance import Placement, place_of
from gpustack.domain.snapshot import Held, Snapshot
from gpustack.domain.worker import Worker
from gpustack.plugins import siblings

from .capacity import Drive, WorkerCapacity, room
from .hope import Hopes
from .placement import Candidate, PlacementRequest, Shortage
from .seat import scored
from .standing import UNMARKED, WorkerMark, standing_of
from .worker_class import Group, Shape, classes_of, known_shape


def objections(
    request: PlacementRequest, worker: Worker, snapshot: Snapshot, *, but_shape: bool = False
) -> list[str]:
    """The sentence of each filter that rules the worker out; with ``but_shape`` only of those whose answer may differ
    among workers of one shape."""
    found = (
        module.keep(request, worker, snapshot) for module in (_filters_of_each() if but_shape else _filters())
    )
    return [sentence for sentence in found if sentence is not None]


def filters_against(
    request: PlacementRequest, worker: Worker, snapshot: Snapshot
) -> tuple[tuple[str, str], ...]:
    """The name and sentence of each filter that rules the worker out."""
    found = (
        (module.__name__.rpartition(".")[2], module.keep(request, worker, snapshot)) for module in _filters()
    )
    return tuple((name, sentence) for name, sentence in found if sentence is not None)


@cache
def _filters() -> tuple[ModuleType, ...]:
    return tuple(siblings(f"{__package__}.filters"))


@cache
def _filters_of_each() -> tuple[ModuleType, ...]:
    return tuple(module for module in _filters() if not getattr(module, "OF_SHAPE", False))


Order = tuple[tuple[int, ...], float, float, int, tuple[int, ...]]


@attrs.frozen(eq=False)
class Offer:
    """A place that fits, with its score."""

    candidate: Candidate
    request: PlacementRequest
    """The variant of the request that it is for."""
    score: float
    order: Order
    """The least of several is taken: most layers on devices, then fewest devices, then fewest followers, then most
    requests at a time, then the strategy's score, then most room left."""

    @property
    def placement(self) -> Placement:
        best, demand = self.candidate, self.request.demand
        note = ". ".join(part for part in (best.note, demand.note) if part)
        members = 1 + len(best.followers)
        claim = attrs.evolve(
            best.claim,
            slots=demand.slots,
            context=demand.context,
            kv_cache=demand.kv_cache(best.devices, members),
            tensor_parallel=demand.tensor_parallel(best.devices, members),
        )
        shares = best.claim.tensor_split or (1.0,) * len(best.gpu_indexes)
        plan = None if best.followers else demand.plan(shares, best.claim.offload_layers)
        if plan is not None:
            plan = plan.of_claim(sum(best.claim.vram.values()))
        return attrs.evolve(best.placement, claim=claim, score=self.score, note=note, memory=plan)


def offer(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> Offer:
    """The candidate for that variant of the request, scored."""
    return _scored_offer(_rank(candidate, request), candidate, request, snapshot)


_Rank = tuple[int, int, int, int]


def _scored_offer(rank: _Rank, candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> Offer:
    score = scored(candidate, request, snapshot)
    order = (rank, -score, -candidate.left, candidate.worker.id, candidate.gpu_indexes)
    return Offer(candidate, request, score, order)


def _rank(candidate: Candidate, request: PlacementRequest) -> _Rank:
    layers = candidate.claim.offload_layers or 0
    return -layers, candidate.devices, len(candidate.followers), -(request.demand.slots or 0)


@attrs.frozen(eq=False)
class Found:
    """What a way to fit offers on a worker: the best place, or what is short for each variant of the request."""

    best: Offer | None
    shortages: tuple[Shortage, ...] = ()


@attrs.define(eq=False)
class Look:
    """What a request finds on one worker, as far as it has looked."""

    objection: str | None
    """Why nothing is placed there; then nothing else is looked at."""
    _room: WorkerCapacity | None
    found: dict[ModuleType, Found] = attrs.field(factory=dict)
    """What the ways to fit that were asked offer there."""

    @property
    def room(self) -> WorkerCapacity:
        """The capacity of the worker, where there is no objection."""
        assert self._room is not None
        return self._room

    def ask(self, way: ModuleType, variants: Sequence[PlacementRequest], snapshot: Snapshot) -> Found:
        """What a way to fit on one worker offers there."""
        known = self.found.get(way)
        if known is None:
            known = self.found[way] = _ask(way, variants, self.room, snapshot)
        return known


def _ask(
    way: ModuleType, variants: Sequence[PlacementRequest], here: WorkerCapacity, snapshot: Snapshot
) -> Found:
    ranked: list[tuple[_Rank, Candidate, PlacementRequest]] = []
    shortages: list[Shortage] = []
    for variant in (one.at(here.build, here.device_name) for one in variants):
        answer = way.candidates(variant, here)
        if not isinstance(answer, list):
            shortages.append(answer)
            continue
        ranked += [(_rank(candidate, variant), candidate, variant) for candidate in answer]
        if ranked and getattr(way, "ONE_SIZE", False):
            break  # fewer requests at a time would not be better
    if not ranked:
        return Found(None, tuple(shortages))
    # Only those that are as good as the best in what counts before the score are rated.
    first = min(rank for rank, _, _ in ranked)
    rated = [
        _scored_offer(rank, candidate, variant, snapshot)
        for rank, candidate, variant in ranked
        if rank == first
    ]
    return Found(min(rated, key=by_order))


by_order = attrgetter("order")
"""The key by which the best of several offers is the least."""


@attrs.define(eq=False)
class _Kept:
    """A look, and the worker and claims that it saw, and how the worker stood."""

    worker: Worker
    held: Held
    mark: WorkerMark
    look: Look


@attrs.define(eq=False)
class Looks:
    """What requests of one kind (replicas of one deployment) find on each worker."""

    request: PlacementRequest
    variants: tuple[PlacementRequest, ...] = attrs.field(
        default=attrs.Factory(lambda self: self.request.variants, takes_self=True)
    )
    _kept: dict[int, _Kept] = attrs.field(factory=dict)
    _drives: dict[Shape, Drive] = attrs.field(factory=dict)
    """By the shape of workers."""
    _passed: set[Shape] = attrs.field(factory=set)
    """The shapes that no filter of shapes rules out."""
    _hopes: dict[ModuleType, Hopes] = attrs.field(factory=dict)
    """By the way to fit."""

    def at(self, worker: Worker, snapshot: Snapshot) -> Look:
        """What is found on a worker; what was found before, if nothing has changed there."""
        return self.at_first([(worker,)], snapshot)[0][1]

    def at_first(self, groups: Iterable[Group], snapshot: Snapshot) -> list[tuple[Group, Look]]:
        """The same of the first of each group, with the group."""
        found: list[tuple[Group, Look]] = []
        claims, known = snapshot.claims.by_worker, self._kept
        marks = standing_of(self.request, snapshot).marks
        for group in groups:
            worker = group[0]
            kept, mark = known.get(worker.id), marks.get(worker.id, UNMARKED)
            held = claims.get(worker.id, ())
            if (
                kept is None
                or kept.worker is not worker
                or kept.held is not held
                or (kept.mark is not mark and kept.mark != mark)
            ):
                kept = known[worker.id] = _Kept(worker, held, mark, self._look(worker, snapshot))
            found.append((group, kept.look))
        return found

    def _look(self, worker: Worker, snapshot: Snapshot) -> Look:
        request, shape = self.request, known_shape(worker, snapshot)
        if against := objections(request, worker, snapshot, but_shape=shape in self._passed):
            return Look(against[0], None)
        if shape is None:
            return Look(None, room(request, worker, snapshot))
        self._passed.add(shape)
        return Look(None, room(request, worker, snapshot, self._drive(worker, shape)))

    def _drive(self, worker: Worker, shape: Shape) -> Drive:
        known = self._drives.get(shape)
        if known is None:
            known = self._drives[shape] = Drive.on(self.request, worker)
        return known

    def best_of(self, way: ModuleType, groups: Iterable[Group], snapshot: Snapshot) -> Offer | None:
        """The best that a way to fit offers on the first of each group; ``None`` if it offers nothing. They are looked
        at in the order of what they could offer at best, and those that cannot win any more are not."""
        hopes = self._hopes.setdefault(way, Hopes(way, self.variants, self._drive)).of(groups, snapshot)
        heapify(hopes)
        found: Offer | None = None
        while hopes and (found is None or hopes[0] < found.order):
            look = self.at(snapshot.workers[heappop(hopes)[-1]], snapshot)
            if look.objection is None:
                here = look.ask(way, self.variants, snapshot).best
                if here is not None and (found is None or here.order < found.order):
                    found = here
        return found


_MOST_KINDS = 16
"""Kinds of requests of which is kept what they found: a megabyte or two each among a thousand workers."""


def looks_of(request: PlacementRequest, snapshot: Snapshot) -> Looks | None:
    """What earlier requests of this kind found in this snapshot, or in those that it follows; ``None`` where that
    depends on more."""
    if not _may_keep(request):
        return None
    kinds = classes_of(snapshot).looks
    # What is kept holds the model and its facts, so that their numbers are not given to others.
    key = (
        id(request.model),
        id(request.facts),
        request.engine_name,
        request.gangs,
        request.slots,
        request.known,
    )
    # It is kept without the instance, whose own claim would not count as taken once it is placed.
    known: Looks = kinds.pop(key, None) or Looks(attrs.evolve(request, instance=None))
    while len(kinds) >= _MOST_KINDS:
        kinds.pop(next(iter(kinds)), None)
    kinds[key] = known  # the last again
    return known


def _may_keep(request: PlacementRequest) -> bool:
    """Whether what is found on a worker depends on that alone: not on the request's own claim, nor on what others
    have."""
    placed = request.instance is not None and place_of(request.instance) is not None
    return not placed and not request.demand.looks_around

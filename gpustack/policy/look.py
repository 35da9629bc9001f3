"""What a request finds on one worker: an objection, or what each way to fit offers there. Kept for the next request of
its kind, for as long as nothing changes on that worker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType

import attrs

from gpustack.domain.instance import Placement
from gpustack.domain.snapshot import Held, Snapshot
from gpustack.domain.worker import Worker
from gpustack.plugins import siblings

from .capacity import WorkerCapacity, room
from .placement import Candidate, PlacementRequest, Shortage
from .seat import scored
from .worker_class import classes_of


def objections(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> list[str]:
    """The sentence of each filter that rules the worker out."""
    found = (module.keep(request, worker, snapshot) for module in _filters())
    return [sentence for sentence in found if sentence is not None]


@cache
def _filters() -> tuple[ModuleType, ...]:
    return tuple(siblings(f"{__package__}.filters"))


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
        return attrs.evolve(best.placement, claim=claim, score=self.score, note=note)


def offer(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> Offer:
    """The candidate for that variant of the request, scored."""
    score = scored(candidate, request, snapshot)
    order = (_rank(candidate, request), -score, -candidate.left, candidate.worker.id, candidate.gpu_indexes)
    return Offer(candidate, request, score, order)


def _rank(candidate: Candidate, request: PlacementRequest) -> tuple[int, ...]:
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
    _found: dict[str, Found] = attrs.field(factory=dict)

    @property
    def room(self) -> WorkerCapacity:
        """The capacity of the worker, where there is no objection."""
        assert self._room is not None
        return self._room

    def ask(self, way: ModuleType, variants: Sequence[PlacementRequest], snapshot: Snapshot) -> Found:
        """What a way to fit on one worker offers there."""
        known = self._found.get(way.__name__)
        if known is None:
            known = self._found[way.__name__] = _ask(way, variants, self.room, snapshot)
        return known


def _ask(
    way: ModuleType, variants: Sequence[PlacementRequest], here: WorkerCapacity, snapshot: Snapshot
) -> Found:
    ranked: list[tuple[tuple[int, ...], Candidate, PlacementRequest]] = []
    shortages: list[Shortage] = []
    for variant in variants:
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
    rated = (offer(candidate, variant, snapshot) for rank, candidate, variant in ranked if rank == first)
    return Found(min(rated, key=lambda one: one.order))


@attrs.define(eq=False)
class _Kept:
    """A look, and the worker and claims that it saw."""

    worker: Worker
    held: Held
    look: Look


@attrs.define(eq=False)
class Looks:
    """What requests of one kind (replicas of one deployment) find on each worker."""

    request: PlacementRequest
    variants: tuple[PlacementRequest, ...] = attrs.field(
        default=attrs.Factory(lambda self: self.request.variants, takes_self=True)
    )
    _kept: dict[int, _Kept] = attrs.field(factory=dict)

    def at(self, worker: Worker, snapshot: Snapshot) -> Look:
        """What is found on a worker; what was found before, if nothing has changed there."""
        held = snapshot.claims.by_worker.get(worker.id, ())
        kept = self._kept.get(worker.id)
        if kept is not None and kept.worker is worker and kept.held is held:
            return kept.look
        against = objections(self.request, worker, snapshot)
        look = Look(against[0], None) if against else Look(None, room(self.request, worker, snapshot))
        self._kept[worker.id] = _Kept(worker, held, look)
        return look


_MOST_KINDS = 16
"""Kinds of requests of which is kept what they found: a megabyte or two each among a thousand workers."""


def looks_of(request: PlacementRequest, snapshot: Snapshot) -> Looks:
    """What earlier requests of this kind found in this snapshot, or in those that it follows."""
    if not _may_keep(request):
        return Looks(request)
    kinds = classes_of(snapshot).looks
    # What is kept holds the model and its facts, so that their numbers are not given to others.
    key = (id(request.model), id(request.facts), request.engine_name, request.gangs, request.slots)
    # It is kept without the instance, whose own claim would not count as taken once it is placed.
    known: Looks = kinds.pop(key, None) or Looks(attrs.evolve(request, instance=None))
    while len(kinds) >= _MOST_KINDS:
        kinds.pop(next(iter(kinds)), None)
    kinds[key] = known  # the last again
    return known


def _may_keep(request: PlacementRequest) -> bool:
    """Whether what is found on a worker depends on that alone: not on the request's own claim, nor on what others
    have."""
    placed = request.instance is not None and request.instance.placement is not None
    return not placed and not request.demand.looks_around

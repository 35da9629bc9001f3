"""One decision on a place: filters, then fits, then scores. The answer is a place, or of every worker why not, and why
several together do not hold it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import takewhile
from types import ModuleType

import attrs

from gpustack.domain.instance import Placement
from gpustack.domain.model import Category
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.engines.program import environment_faults, programs
from gpustack.engines.registry import engine_by_name
from gpustack.plugins import siblings

from .capacity import WorkerCapacity, picked_on, undriven, usable
from .gang import faults_of_picked, most_alike
from .look import Look, Looks, Offer, by_order, looks_of, offer
from .model_support import faults_of_model
from .placement import PlacementRequest, Rejection, Shortage
from .worker_class import Group, unsorted_alike


def decide(
    request: PlacementRequest, snapshot: Snapshot, *, among: Iterable[Worker] | None = None
) -> Placement | tuple[Rejection, ...]:
    """The place on ``among`` (all workers by default), or the reasons against every one, nearest first.

    The same request and snapshot get the same answer.
    """
    if impossible := impossibilities(request):
        return tuple(Rejection(sentence=sentence) for sentence in impossible)
    if among is not None:
        return _decide([(one,) for one in among], Looks(request), snapshot)
    groups, looks = unsorted_alike(request, snapshot), looks_of(request, snapshot)
    if looks is None:
        return _decide(groups, Looks(request), snapshot)
    for way in _foretold():
        best = looks.best_of(way, groups, snapshot)
        if best is not None:
            return best.placement
    return _decide(groups, looks, snapshot)


def decide_on_groups(
    request: PlacementRequest, snapshot: Snapshot, groups: Iterable[Group]
) -> Placement | tuple[Rejection, ...]:
    """The same for workers of which each group is alike."""
    return _decide(list(groups), Looks(request), snapshot)


def decide_alone(worker: Worker, looks: Looks, snapshot: Snapshot) -> Placement | tuple[Rejection, ...]:
    """The place on one worker, of which what is found is kept in ``looks``."""
    return _decide([(worker,)], looks, snapshot)


def _decide(groups: list[Group], looks: Looks, snapshot: Snapshot) -> Placement | tuple[Rejection, ...]:
    if not groups:
        return (Rejection(sentence="there is no worker yet"),)
    seen = looks.at_first(groups, snapshot)
    kept = [pair for pair in seen if pair[1].objection is None]
    placement, short = _fit(kept, looks, snapshot)
    if placement is not None:
        return placement
    seen.sort(key=_in_order)
    out = [_against(group, look.objection) for group, look in seen if look.objection is not None]
    return (*short, *out, *_missing_workers(looks.request, snapshot))


def _in_order(seen: tuple[Group, Look]) -> int:
    return seen[0][0].id


def _against(group: Group, sentence: str, shortage: Shortage | None = None) -> Rejection:
    first, *others = group
    return Rejection(
        sentence=sentence,
        worker_id=first.id,
        worker=first.name,
        shortage=shortage,
        others=tuple(worker.name for worker in others),
    )


def impossibilities(request: PlacementRequest) -> list[str]:
    """Faults of the deployment itself, which no worker can mend."""
    engine = engine_by_name(request.engine_name)
    faults = [] if engine is None else engine.faults(request.model)
    faults += environment_faults(request.model, programs().get(request.engine_name))
    facts = request.facts if engine is not None and not engine.any_device else None
    if engine is not None and engine.memory is not None and facts is not None:
        faults += faults_of_model(request.model, facts, engine.memory)
    if facts is not None and facts.category is Category.UNKNOWN and facts.architecture:
        faults.append(
            f"{request.model.source.readable} ({facts.architecture}) is not a model that can be served"
        )
    try:
        return [*faults, *faults_of_picked(request)]
    except ValueError as error:
        return [*faults, str(error)]


def _missing_workers(request: PlacementRequest, snapshot: Snapshot) -> list[Rejection]:
    there = {worker.name for worker in snapshot.workers.values()}
    return [
        Rejection(sentence=f"there is no worker {name}, of which a GPU is selected")
        for name in request.picked
        if name not in there
    ]


def _fit(
    groups: list[tuple[Group, Look]], looks: Looks, snapshot: Snapshot
) -> tuple[Placement | None, list[Rejection]]:
    request = looks.request
    everyone: list[WorkerCapacity] | None = None
    together: dict[str, Rejection] = {}
    for way in _ways():
        offers: list[Offer] = []
        if hasattr(way, "gangs"):
            if everyone is None:
                everyone = _rooms_of_all(groups, looks, snapshot)
            offers, refused = _gangs(way, looks.variants, everyone, snapshot)
            if refused is not None:
                together.setdefault(refused.sentence, refused)
        else:
            for _, look in groups:
                found = look.found.get(way) or look.ask(way, looks.variants, snapshot)
                if found.best is not None:
                    offers.append(found.best)
        if offers:
            return min(offers, key=by_order).placement, []
    groups.sort(key=_in_order)
    reasons = [_reason(request, group, _nearest(look)) for group, look in groups]
    reasons.sort(key=lambda reason: reason.shortage.short if reason.shortage else float("inf"))
    return None, [*reasons, *together.values()]


def _nearest(look: Look) -> Shortage | None:
    """The smallest shortage of a worker, in whichever way."""
    shortages = [shortage for way in _ways() if way in look.found for shortage in look.found[way].shortages]
    return min(shortages, key=lambda shortage: shortage.short, default=None)


def _rooms_of_all(groups: list[tuple[Group, Look]], looks: Looks, snapshot: Snapshot) -> list[WorkerCapacity]:
    """The capacity of every worker, in the order of ids: gangs are made of several that are alike. Of these only the
    first are told apart, as many as a gang can have."""
    most = most_alike(looks.request)
    found: list[WorkerCapacity] = []
    for group, look in groups:
        found += (look.room, *(looks.at(worker, snapshot).room for worker in group[1:most]))
        if len(group) > most:
            found[-1] = attrs.evolve(found[-1], stands_for=len(group) - most + 1)
    return sorted(found, key=lambda here: here.worker.id)


def _gangs(
    way: ModuleType,
    variants: Iterable[PlacementRequest],
    rooms: list[WorkerCapacity],
    snapshot: Snapshot,
) -> tuple[list[Offer], Rejection | None]:
    """The candidates of a way to fit on several workers, or why there are none."""
    offers: list[Offer] = []
    refused: Rejection | None = None
    for variant in variants:
        answer = way.gangs(variant, rooms, snapshot) if len(rooms) > 1 else []
        refused = answer if isinstance(answer, Rejection) else None
        if not isinstance(answer, Rejection):
            offers += [offer(candidate, variant, snapshot) for candidate in answer]
    return offers, refused


@cache
def _ways() -> tuple[ModuleType, ...]:
    return tuple(sorted(siblings(f"{__package__}.fits"), key=lambda module: int(module.RANK)))


@cache
def _foretold() -> tuple[ModuleType, ...]:
    """The first ways, as far as each tells from numbers what is best."""
    return tuple(takewhile(lambda way: hasattr(way, "best"), _ways()))


def _reason(request: PlacementRequest, group: Group, shortage: Shortage | None) -> Rejection:
    sentence = shortage.sentence if shortage is not None else _no_way(request, group[0])
    return _against(group, sentence, shortage)


def _no_way(request: PlacementRequest, worker: Worker) -> str:
    if reason := undriven(request, worker):
        return reason
    if not usable(request, worker):
        return f"worker {worker.name} has no GPU that can be used, and the deployment must not run on the CPU"
    if len(request.picked) > 1:
        own = len(picked_on(request, worker))
        return f"worker {worker.name} has only {own} of the {len(request.gpu_ids)} selected GPUs"
    counts = request.demand.device_counts[:1]
    wanted = len(request.demand.split) or len(request.gpu_ids) or max(counts, default=0)
    return f"worker {worker.name} has fewer GPUs than the {wanted} the deployment divides itself among"

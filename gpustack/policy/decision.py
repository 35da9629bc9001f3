"""One decision on a place: filters, then fits, then scores. The answer is a place, or of every worker why not, and why
several together do not hold it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from types import ModuleType

import attrs

from gpustack.domain.instance import Placement
from gpustack.domain.model import Category
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.engines.program import environment_faults, programs
from gpustack.engines.registry import engine_by_name
from gpustack.plugins import siblings

from .capacity import WorkerCapacity, picked_on, room, undriven, usable
from .gang import faults_of_picked
from .model_support import faults_of_model
from .placement import Candidate, PlacementRequest, Rejection, Shortage
from .seat import scored
from .worker_class import Group, alike


def decide(
    request: PlacementRequest, snapshot: Snapshot, *, among: Iterable[Worker] | None = None
) -> Placement | tuple[Rejection, ...]:
    """The place on ``among`` (all workers by default), or the reasons against every one, nearest first.

    The same request and snapshot get the same answer.
    """
    if impossible := impossibilities(request):
        return tuple(Rejection(sentence=sentence) for sentence in impossible)
    groups = (
        alike(request, snapshot) if among is None else [(one,) for one in sorted(among, key=lambda w: w.id)]
    )
    if not groups:
        return (Rejection(sentence="there is no worker yet"),)
    out: list[Rejection] = []
    kept: list[Group] = []
    for group in groups:
        against = objections(request, group[0], snapshot)
        if against:
            out.append(_against(group, against[0]))
        else:
            kept.append(group)
    placement, short = _fit(request, kept, snapshot)
    return placement or (*short, *out, *_missing_workers(request, snapshot))


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


def objections(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> list[str]:
    """The sentence of each filter that rules the worker out."""
    found = (module.keep(request, worker, snapshot) for module in _modules("filters"))
    return [sentence for sentence in found if sentence is not None]


@attrs.define
class _Refusals:
    """Why ways to fit offered nothing."""

    alone: dict[int, Shortage] = attrs.field(factory=dict)
    """The smallest shortage of each worker by its id."""
    together: dict[str, Rejection] = attrs.field(factory=dict)
    """Why several workers together do not hold it, by its sentence."""

    def note(self, worker: Worker, shortage: Shortage) -> None:
        if worker.id not in self.alone or shortage.short < self.alone[worker.id].short:
            self.alone[worker.id] = shortage


def _fit(
    request: PlacementRequest, groups: list[Group], snapshot: Snapshot
) -> tuple[Placement | None, list[Rejection]]:
    refusals = _Refusals()
    rooms = [room(request, group[0], snapshot) for group in groups]
    everyone: list[WorkerCapacity] | None = None
    variants = request.variants
    for way in sorted(_modules("fits"), key=lambda module: int(module.RANK)):
        found: list[_Offer] = []
        refused: Rejection | None = None
        for variant in variants:
            if hasattr(way, "gangs"):
                if everyone is None:
                    everyone = _rooms_of_all(request, groups, rooms, snapshot)
                gangs, refused = _gangs(way, variant, everyone, snapshot)
                found += gangs
            else:
                found += _offers(way, variant, rooms, refusals)
        if found:
            return _choose(found, snapshot), []
        if refused is not None:
            refusals.together.setdefault(refused.sentence, refused)
    reasons = [_reason(request, group, refusals.alone.get(group[0].id)) for group in groups]
    reasons.sort(key=lambda reason: reason.shortage.short if reason.shortage else float("inf"))
    return None, [*reasons, *refusals.together.values()]


def _rooms_of_all(
    request: PlacementRequest, groups: list[Group], rooms: list[WorkerCapacity], snapshot: Snapshot
) -> list[WorkerCapacity]:
    """The capacity of every worker, in the order of ids: gangs are made of several that are alike."""
    found = [
        here if worker is here.worker else room(request, worker, snapshot)
        for group, here in zip(groups, rooms, strict=True)
        for worker in group
    ]
    return sorted(found, key=lambda here: here.worker.id)


_Offer = tuple[Candidate, PlacementRequest]
"""A candidate, and the variant of the request that it is for."""


def _offers(
    way: ModuleType, request: PlacementRequest, rooms: list[WorkerCapacity], refusals: _Refusals
) -> list[_Offer]:
    """The candidates of a way to fit on one worker; for each worker without any, ``refusals`` notes its shortage."""
    found: list[_Offer] = []
    for here in rooms:
        answer = way.candidates(request, here)
        if isinstance(answer, list):
            found += [(candidate, request) for candidate in answer]
        else:
            refusals.note(here.worker, answer)
    return found


def _gangs(
    way: ModuleType, request: PlacementRequest, rooms: list[WorkerCapacity], snapshot: Snapshot
) -> tuple[list[_Offer], Rejection | None]:
    """The candidates of a way to fit on several workers, or why there are none."""
    answer = way.gangs(request, rooms, snapshot) if len(rooms) > 1 else []
    if isinstance(answer, Rejection):
        return [], answer
    return [(candidate, request) for candidate in answer], None


def _choose(found: list[_Offer], snapshot: Snapshot) -> Placement:
    """Most layers on devices, then fewest devices, then fewest followers, then most requests at a time, then the
    strategy's score, then most room left.
    """
    ranks = [_rank(*offer) for offer in found]
    first = max(ranks)
    rated = [
        (scored(*offer, snapshot), *offer) for rank, offer in zip(ranks, found, strict=True) if rank == first
    ]
    best_score, best, request = min(
        rated, key=lambda one: (-one[0], -one[1].left, one[1].worker.id, one[1].gpu_indexes)
    )
    demand = request.demand
    note = ". ".join(part for part in (best.note, demand.note) if part)
    members = 1 + len(best.followers)
    claim = attrs.evolve(
        best.claim,
        slots=demand.slots,
        context=demand.context,
        kv_cache=demand.kv_cache(best.devices, members),
        tensor_parallel=demand.tensor_parallel(best.devices, members),
    )
    return attrs.evolve(best.placement, claim=claim, score=best_score, note=note)


def _rank(candidate: Candidate, request: PlacementRequest) -> tuple[int, int, int, int]:
    layers = candidate.claim.offload_layers or 0
    return layers, -candidate.devices, -len(candidate.followers), request.demand.slots or 0


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


@cache
def _modules(folder: str) -> tuple[ModuleType, ...]:
    return tuple(siblings(f"{__package__}.{folder}"))

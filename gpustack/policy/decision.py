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


def decide(
    request: PlacementRequest, snapshot: Snapshot, *, among: Iterable[Worker] | None = None
) -> Placement | tuple[Rejection, ...]:
    """The place on ``among`` (all workers by default), or the reasons against every one, nearest first.

    The same request and snapshot get the same answer.
    """
    if impossible := impossibilities(request):
        return tuple(Rejection(sentence=sentence) for sentence in impossible)
    workers = sorted(snapshot.workers.values() if among is None else among, key=lambda w: w.id)
    if not workers:
        return (Rejection(sentence="there is no worker yet"),)
    out: list[Rejection] = []
    kept: list[Worker] = []
    for worker in workers:
        against = objections(request, worker, snapshot)
        if against:
            out.append(Rejection(sentence=against[0], worker_id=worker.id, worker=worker.name))
        else:
            kept.append(worker)
    placement, short = _fit(request, kept, snapshot)
    return placement or (*short, *out, *_missing_workers(request, snapshot))


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
    request: PlacementRequest, workers: list[Worker], snapshot: Snapshot
) -> tuple[Placement | None, list[Rejection]]:
    refusals = _Refusals()
    rooms = [room(request, worker, snapshot) for worker in workers]
    for way in sorted(_modules("fits"), key=lambda module: int(module.RANK)):
        found: list[Candidate] = []
        refused: Rejection | None = None
        for variant in request.variants:
            if hasattr(way, "gangs"):
                gangs, refused = _gangs(way, variant, rooms, snapshot)
                found += gangs
            else:
                found += _offers(way, variant, rooms, refusals)
        if found:
            return _choose(request, found, snapshot), []
        if refused is not None:
            refusals.together.setdefault(refused.sentence, refused)
    reasons = [_reason(request, worker, refusals.alone.get(worker.id)) for worker in workers]
    reasons.sort(key=lambda reason: reason.shortage.short if reason.shortage else float("inf"))
    return None, [*reasons, *refusals.together.values()]


def _offers(
    way: ModuleType, request: PlacementRequest, rooms: list[WorkerCapacity], refusals: _Refusals
) -> list[Candidate]:
    """The candidates of a way to fit on one worker; for each worker without any, ``refusals`` notes its shortage."""
    found: list[Candidate] = []
    for here in rooms:
        answer = way.candidates(request, here)
        if isinstance(answer, list):
            found += [attrs.evolve(candidate, slots=request.demand.slots) for candidate in answer]
        else:
            refusals.note(here.worker, answer)
    return found


def _gangs(
    way: ModuleType, request: PlacementRequest, rooms: list[WorkerCapacity], snapshot: Snapshot
) -> tuple[list[Candidate], Rejection | None]:
    """The candidates of a way to fit on several workers, or why there are none."""
    answer = way.gangs(request, rooms, snapshot) if len(rooms) > 1 else []
    if isinstance(answer, Rejection):
        return [], answer
    return [attrs.evolve(candidate, slots=request.demand.slots) for candidate in answer], None


def _choose(request: PlacementRequest, found: list[Candidate], snapshot: Snapshot) -> Placement:
    """Most layers on devices, then fewest devices, then fewest followers, then most requests at a time, then the
    strategy's score, then most room left.
    """
    first = max(_rank(candidate) for candidate in found)
    rated = [(scored(c, request, snapshot), c) for c in found if _rank(c) == first]
    best_score, best = min(
        rated, key=lambda pair: (-pair[0], -pair[1].left, pair[1].worker.id, pair[1].gpu_indexes)
    )
    note = ". ".join(part for part in (best.note, request.demand.note) if part)
    demand = attrs.evolve(request, slots=best.slots).demand
    members = 1 + len(best.followers)
    claim = attrs.evolve(
        best.claim,
        slots=best.slots,
        context=demand.context,
        kv_cache=demand.kv_cache(best.devices, members),
        tensor_parallel=demand.tensor_parallel(best.devices, members),
    )
    return attrs.evolve(best.placement, claim=claim, score=best_score, note=note)


def _rank(candidate: Candidate) -> tuple[int, int, int, int]:
    layers = candidate.claim.offload_layers or 0
    return layers, -candidate.devices, -len(candidate.followers), candidate.slots or 0


def _reason(request: PlacementRequest, worker: Worker, shortage: Shortage | None) -> Rejection:
    sentence = shortage.sentence if shortage is not None else _no_way(request, worker)
    return Rejection(sentence=sentence, worker_id=worker.id, worker=worker.name, shortage=shortage)


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

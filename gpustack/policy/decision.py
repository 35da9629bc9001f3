"""One decision on a place: filters, then fits, then scores. The answer is a place, or of every worker why not."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from types import ModuleType

import attrs

from gpustack.domain.device import DeviceId
from gpustack.domain.instance import Placement
from gpustack.domain.model import Category
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.engines.registry import engine_by_name
from gpustack.plugins import siblings

from .capacity import undriven, usable
from .placement import Candidate, PlacementRequest, Rejection, Shortage


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
    return placement or (*short, *out)


def impossibilities(request: PlacementRequest) -> list[str]:
    """Faults of the deployment itself, which no worker can mend."""
    engine = engine_by_name(request.engine_name)
    faults = [] if engine is None else engine.faults(request.model)
    facts = request.facts if engine is not None and not engine.any_device else None
    if facts is not None and facts.category is Category.UNKNOWN and facts.architecture:
        faults.append(
            f"{request.model.source.readable} ({facts.architecture}) is not a model that can be served"
        )
    try:
        workers = {DeviceId.parse(text).worker for text in request.gpu_ids}
    except ValueError as error:
        return [*faults, str(error)]
    if len(workers) > 1:
        named = ", ".join(sorted(workers))
        faults.append(f"GPUs of several workers are selected ({named}); select GPUs of one worker")
    return faults


def objections(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> list[str]:
    """The sentence of each filter that rules the worker out."""
    found = (module.keep(request, worker, snapshot) for module in _modules("filters"))
    return [sentence for sentence in found if sentence is not None]


def _fit(
    request: PlacementRequest, workers: list[Worker], snapshot: Snapshot
) -> tuple[Placement | None, list[Rejection]]:
    shortages: dict[int, Shortage] = {}
    for way in sorted(_modules("fits"), key=lambda module: int(module.RANK)):
        found: list[Candidate] = []
        for variant in request.variants:
            found += _offers(way, variant, workers, snapshot, shortages)
        if found:
            return _choose(request, found, snapshot), []
    reasons = [_reason(request, worker, shortages.get(worker.id)) for worker in workers]
    return None, sorted(
        reasons, key=lambda reason: reason.shortage.short if reason.shortage else float("inf")
    )


def _offers(
    way: ModuleType,
    request: PlacementRequest,
    workers: list[Worker],
    snapshot: Snapshot,
    shortages: dict[int, Shortage],
) -> list[Candidate]:
    """The candidates of one way to fit; for each worker without any, ``shortages`` keeps its smallest shortage."""
    found: list[Candidate] = []
    for worker in workers:
        answer = way.candidates(request, worker, snapshot)
        if isinstance(answer, list):
            found += [attrs.evolve(candidate, slots=request.demand.slots) for candidate in answer]
        elif worker.id not in shortages or answer.short < shortages[worker.id].short:
            shortages[worker.id] = answer
    return found


def _choose(request: PlacementRequest, found: list[Candidate], snapshot: Snapshot) -> Placement:
    """Most layers on devices, then fewest devices, then most requests at a time, then the strategy's score, then
    most room left.
    """
    first = max(_rank(candidate) for candidate in found)
    score = _modules_by_name("scores")[request.model.placement_strategy.value].score
    rated = [(score(c, request, snapshot), c) for c in found if _rank(c) == first]
    best_score, best = min(
        rated, key=lambda pair: (-pair[0], -pair[1].left, pair[1].worker.id, pair[1].gpu_indexes)
    )
    note = ". ".join(part for part in (best.note, request.demand.note) if part)
    demand = attrs.evolve(request, slots=best.slots).demand
    cache = demand.kv_cache(len(best.gpu_indexes))
    claim = attrs.evolve(best.claim, slots=best.slots, context=demand.context, kv_cache=cache)
    return Placement(
        worker_id=best.worker.id, gpu_indexes=best.gpu_indexes, claim=claim, score=best_score, note=note
    )


def _rank(candidate: Candidate) -> tuple[int, int, int]:
    return candidate.claim.offload_layers or 0, -len(candidate.gpu_indexes), candidate.slots or 0


def _reason(request: PlacementRequest, worker: Worker, shortage: Shortage | None) -> Rejection:
    sentence = shortage.sentence if shortage is not None else _no_way(request, worker)
    return Rejection(sentence=sentence, worker_id=worker.id, worker=worker.name, shortage=shortage)


def _no_way(request: PlacementRequest, worker: Worker) -> str:
    if reason := undriven(request, worker):
        return reason
    if not usable(request, worker):
        return f"worker {worker.name} has no GPU that can be used, and the deployment must not run on the CPU"
    wanted = len(request.demand.split) or len(request.gpu_ids)
    return f"worker {worker.name} has fewer GPUs than the {wanted} the deployment divides itself among"


@cache
def _modules(folder: str) -> tuple[ModuleType, ...]:
    return tuple(siblings(f"{__package__}.{folder}"))


@cache
def _modules_by_name(folder: str) -> dict[str, ModuleType]:
    return {module.__name__.rpartition(".")[2]: module for module in _modules(folder)}

"""Why an instance is where it is or why it waits, worker by worker, decided again on a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, Placement, claims_of
from gpustack.domain.model import Model
from gpustack.domain.record import table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.engines import custom
from gpustack.engines.registry import engine_for
from gpustack.errors import Invalid

from .decision import decide, impossibilities
from .estimate.learnt import KnownRuns
from .explain_memory import told
from .location import where
from .look import Looks, looks_of
from .placement import USUAL_GANGS, GangSettings, PlacementRequest
from .preemption import explained
from .remedies import quantisation
from .remedy import KnownFacts, Remedy
from .schedule import place_and_faults
from .seat import Score, scores_of, seated
from .trial import Trial, all_changes, nothing_known
from .verdict import WorkerVerdict, verdicts_of
from .waiting import Wait, wait_of
from .worker_class import alike

_MOST_PLACES = 5


@attrs.frozen(kw_only=True)
class RankedPlace:
    """A place that fits, or the one that it has: ``others`` workers have as good a one each. ``why`` tells in what it
    is behind the first."""

    workers: tuple[str, ...]
    """Of all members, the main one's first."""
    where: str
    score: float
    """The sum of the points of all ``scores``."""
    scores: tuple[Score, ...] = ()
    others: int = 0
    why: str = ""


@attrs.frozen(kw_only=True)
class Explanation:
    """``sentence`` sums up; ``fits`` tells whether there is a place (its own, if it is placed).

    ``final`` tells that waiting does not help: with every worker back and empty there would still be no place, or
    what the model needs cannot be known because its files are not there, not open to us, or no model.
    """

    instance: str
    model: str
    engine: str | None
    fits: bool
    sentence: str
    smallest_change: str | None = None
    note: str = ""
    final: bool = False
    memory: tuple[str, ...] = ()
    """How the memory of its place comes about, a sentence a term: estimated, or learnt from runs; and measured."""
    workers: tuple[WorkerVerdict, ...] = ()
    """One for all workers that are the same to it; those first on which it fits, then those nearest to it."""
    waits_for: Wait | None = None
    changes: tuple[Remedy, ...] = ()
    """The smallest change of each kind that would make it fit, the least costly first."""
    places: tuple[RankedPlace, ...] = ()
    """Where it is and why (or where it would be placed), then the best of the others, as they are now."""
    unknown: tuple[str, ...] = ()
    """What could not be looked at."""


def explain(
    model: Model,
    instance: ModelInstance,
    snapshot: Snapshot,
    facts: ModelFacts | None,
    *,
    fault: str | None = None,
    lasting: bool = False,
    gangs: GangSettings = USUAL_GANGS,
    facts_of: KnownFacts = nothing_known,
    silence_allowed: timedelta | None = None,
) -> Explanation:
    """Explain an instance. ``fault`` is why facts could not be read; ``lasting`` says that reading them again would not
    help. ``facts_of`` tells what other models need, ``silence_allowed`` how long a worker may be not ready before its
    instances are placed elsewhere.

    Faults of the deployment are in the answer, not raised.
    """
    wait = wait_of(instance, snapshot, silence_allowed=silence_allowed)
    blank = Explanation(
        instance=instance.name, model=model.name, engine=None, fits=False, sentence="", waits_for=wait
    )
    try:
        engine = engine_for(model, facts).name
    except Invalid as error:
        return attrs.evolve(blank, sentence=fault or str(error), final=lasting or fault is None)
    request = PlacementRequest(
        model=model,
        instance=instance,
        facts=facts,
        engine_name=engine,
        gangs=gangs,
        known=KnownRuns.of(snapshot, engine, facts),
    )
    placed = instance.placement
    # A custom command runs without facts; for everything else the file says what it needs.
    unread = fault is not None and facts is None and placed is None and engine != custom.ENGINE.name
    verdicts, places = _all_verdicts(request, snapshot, unread=unread)
    shown = engine if model.backend_spec is None else model.backend_spec.backend
    known = attrs.evolve(blank, engine=shown, workers=verdicts)
    if placed is not None:
        return attrs.evolve(
            known,
            fits=True,
            sentence=f"placed on {where(placed, snapshot)}",
            note=placed.note,
            memory=told(placed.memory, instance.memory),
            places=ranking(request, snapshot, placed, places),
        )
    if fault is not None and facts is None:
        return attrs.evolve(known, sentence=fault, final=lasting)
    found, faults = place_and_faults(request, snapshot)
    if isinstance(found, Placement):
        return attrs.evolve(
            known,
            fits=True,
            sentence=f"fits on {where(found, snapshot)}",
            note=found.note,
            memory=told(found.memory, None),
            places=ranking(request, snapshot, found, places),
        )
    trial = Trial(request, snapshot, found.reasons, facts_of)
    return attrs.evolve(
        known,
        sentence=found.sentence,
        note="" if faults else explained(request, snapshot),
        smallest_change=found.smallest_change,
        final=not faults and _never_fits(request, snapshot),
        changes=() if faults else all_changes(trial),
        unknown=() if faults else _unlooked_at(trial),
    )


def _all_verdicts(
    request: PlacementRequest, snapshot: Snapshot, *, unread: bool
) -> tuple[tuple[WorkerVerdict, ...], list[tuple[Placement, int]]]:
    """A verdict for each class of workers, and the places on each alone with how many more there are like it."""
    looks = looks_of(request, snapshot) or Looks(request)
    verdicts, places = [], []
    for group in alike(request, snapshot):
        for verdict, place in verdicts_of(looks, group, snapshot, unread=unread):
            verdicts.append(verdict)
            if place is not None:
                places.append((place, len(verdict.others)))
    verdicts.sort(key=_nearness)
    return tuple(verdicts), places


def _nearness(verdict: WorkerVerdict) -> tuple[int, float, int]:
    shortages = [bind.short for bind in verdict.binds if bind.short is not None]
    far = min(shortages, default=0 if verdict.fits else None)
    rank = {True: 0, None: 1, False: 2}[verdict.fits]
    return rank, float("inf") if far is None else far, verdict.worker_id


def _unlooked_at(trial: Trial) -> tuple[str, ...]:
    """What might help as well, and is not known here."""
    facts = trial.request.facts
    if facts is None or quantisation.others(trial):
        return ()
    return ("which other quantisations of the model there are; nothing is fetched to find out",)


def ranking(
    request: PlacementRequest,
    snapshot: Snapshot,
    first: Placement,
    places: Sequence[tuple[Placement, int]],
) -> tuple[RankedPlace, ...]:
    """The place ``first``, and the best of the others with how many there are of each."""
    own = frozenset(key for key, _ in claims_of(first))
    others = sorted(
        (pair for pair in places if pair[1] or {key for key, _ in claims_of(pair[0])} != own),
        key=lambda pair: (_order(pair[0]), pair[0].worker_id),
    )
    found = [_ranked(request, snapshot, first, 0, None)]
    for place, more in others[:_MOST_PLACES]:
        is_own = frozenset(key for key, _ in claims_of(place)) == own
        found.append(_ranked(request, snapshot, place, more - 1 if is_own else more, first))
    return tuple(found)


def _order(place: Placement) -> tuple[float, ...]:
    """As decisions compare places: what counts most comes first; less is better."""
    layers, slots = place.claim.offload_layers or 0, place.claim.slots or 0
    return -layers, len(place.gpu_indexes), len(place.subordinates), -slots, -place.score


def _ranked(
    request: PlacementRequest, snapshot: Snapshot, place: Placement, others: int, best: Placement | None
) -> RankedPlace:
    seat = seated(place, snapshot)
    scores = () if seat is None else scores_of(seat, request, snapshot)
    now = attrs.evolve(place, score=sum(score.points for score in scores)) if scores else place
    keys = (key for key, _ in claims_of(place))
    return RankedPlace(
        workers=tuple(w.name for key in keys if (w := snapshot.workers.get(key)) is not None),
        where=where(place, snapshot),
        score=now.score,
        scores=scores,
        others=others,
        why="" if best is None else _behind(now, best),
    )


def _behind(place: Placement, best: Placement) -> str:
    """Why ``best`` is taken rather than that."""
    (layers, gpus, members, slots, _), (most, fewest, least, many, _) = _order(place), _order(best)
    if layers > most:
        return f"only {-layers:.0f} instead of {-most:.0f} layers on GPUs"
    if layers == most and gpus > fewest:
        return f"takes {gpus:.0f} GPUs instead of {fewest:.0f}"
    if (layers, gpus) == (most, fewest) and members > least:
        return "is divided among more workers"
    if (layers, gpus, members) == (most, fewest, least) and slots > many:
        return f"has room for {-slots:.0f} requests at a time instead of {-many:.0f}"
    return "scores less" if place.score < best.score else ""


def _never_fits(request: PlacementRequest, snapshot: Snapshot) -> bool:
    """Whether there would be no place with every worker ready, uncordoned and empty. False while the memory of one is
    unknown."""
    if impossibilities(request):
        return True
    if not snapshot.workers or any(w.status.memory.total is None for w in snapshot.workers.values()):
        return False
    workers = {
        key: attrs.evolve(
            worker.emptied,
            cordoned=False,
            draining=False,
            taints=(),
            condition=Condition(state=WorkerState.READY),
        )
        for key, worker in snapshot.workers.items()
    }
    tables = {**snapshot.tables, table_of(Worker): workers, table_of(ModelInstance): {}}
    return not isinstance(decide(request, attrs.evolve(snapshot, tables=tables)), Placement)

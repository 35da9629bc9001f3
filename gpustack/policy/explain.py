"""Why an instance is where it is or why it waits, worker by worker, decided again on a snapshot."""

from __future__ import annotations

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.model import Model
from gpustack.domain.record import table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.engines import custom
from gpustack.engines.registry import engine_for
from gpustack.errors import Invalid

from .decision import decide, impossibilities
from .location import where
from .look import objections
from .placement import USUAL_GANGS, GangSettings, PlacementRequest
from .schedule import place_and_faults, unjudged

_UNREAD = "nothing is against it, but what the model needs is known only once its file can be read"


@attrs.frozen(kw_only=True)
class WorkerVerdict:
    """How it would fit on one worker, or everything that is against that.

    ``fits`` is ``None`` where nothing is against it but what the model needs is unknown.
    """

    worker_id: int
    worker: str
    fits: bool | None
    sentences: tuple[str, ...]


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
    workers: tuple[WorkerVerdict, ...] = ()


def explain(
    model: Model,
    instance: ModelInstance,
    snapshot: Snapshot,
    facts: ModelFacts | None,
    *,
    fault: str | None = None,
    lasting: bool = False,
    gangs: GangSettings = USUAL_GANGS,
) -> Explanation:
    """Explain an instance. ``fault`` is why facts could not be read; ``lasting`` says that reading them again would not
    help.

    Faults of the deployment are in the answer, not raised.
    """
    blank = Explanation(instance=instance.name, model=model.name, engine=None, fits=False, sentence="")
    try:
        engine = engine_for(model, facts).name
    except Invalid as error:
        return attrs.evolve(blank, sentence=fault or str(error), final=lasting or fault is None)
    request = PlacementRequest(model=model, instance=instance, facts=facts, engine_name=engine, gangs=gangs)
    workers = sorted(snapshot.workers.values(), key=lambda worker: worker.id)
    placed = instance.placement
    # A custom command runs without facts; for everything else the file says what it needs.
    unread = fault is not None and facts is None and placed is None and engine != custom.ENGINE.name
    verdicts = tuple(_verdict_or_fault(request, worker, snapshot, unread=unread) for worker in workers)
    shown = engine if model.backend_spec is None else model.backend_spec.backend
    known = attrs.evolve(blank, engine=shown, workers=verdicts)
    if placed is not None:
        return attrs.evolve(
            known, fits=True, sentence=f"placed on {where(placed, snapshot)}", note=placed.note
        )
    if fault is not None and facts is None:
        return attrs.evolve(known, sentence=fault, final=lasting)
    found, faults = place_and_faults(request, snapshot)
    if isinstance(found, Placement):
        return attrs.evolve(known, fits=True, sentence=f"fits on {where(found, snapshot)}", note=found.note)
    return attrs.evolve(
        known,
        sentence=found.sentence,
        smallest_change=found.smallest_change,
        final=not faults and _never_fits(request, snapshot),
    )


def _never_fits(request: PlacementRequest, snapshot: Snapshot) -> bool:
    """Whether there would be no place with every worker ready, uncordoned and empty. False while the memory of one is
    unknown."""
    if impossibilities(request):
        return True
    if not snapshot.workers or any(w.status.memory.total is None for w in snapshot.workers.values()):
        return False
    workers = {
        key: attrs.evolve(
            worker.emptied, cordoned=False, draining=False, condition=Condition(state=WorkerState.READY)
        )
        for key, worker in snapshot.workers.items()
    }
    tables = {**snapshot.tables, table_of(Worker): workers, table_of(ModelInstance): {}}
    return not isinstance(decide(request, attrs.evolve(snapshot, tables=tables)), Placement)


def _verdict_or_fault(
    request: PlacementRequest, worker: Worker, snapshot: Snapshot, *, unread: bool
) -> WorkerVerdict:
    """The verdict of one worker; one that raises what nobody foresaw is told as such."""
    try:
        return _verdict(request, worker, snapshot, unread=unread)
    except Exception as error:  # noqa: BLE001  whatever it is, it is this worker's
        told = (unjudged(worker, error).sentence,)
        return WorkerVerdict(worker_id=worker.id, worker=worker.name, fits=None, sentences=told)


def _verdict(request: PlacementRequest, worker: Worker, snapshot: Snapshot, *, unread: bool) -> WorkerVerdict:
    against = [*impossibilities(request), *objections(request, worker, snapshot)]
    if against:
        return WorkerVerdict(worker_id=worker.id, worker=worker.name, fits=False, sentences=tuple(against))
    if unread:
        return WorkerVerdict(worker_id=worker.id, worker=worker.name, fits=None, sentences=(_UNREAD,))
    found = decide(request, snapshot, among=(worker,))
    if isinstance(found, Placement):
        fits = (f"fits on {where(found, snapshot)}", *([found.note] if found.note else ()))
        return WorkerVerdict(worker_id=worker.id, worker=worker.name, fits=True, sentences=fits)
    sentences = tuple(reason.sentence for reason in found)
    return WorkerVerdict(worker_id=worker.id, worker=worker.name, fits=False, sentences=sentences)

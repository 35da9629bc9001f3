"""Where a replica runs: the call that the scheduler makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from gpustack.domain.instance import Placement
from gpustack.domain.record import table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker

from .decision import decide
from .placement import PlacementRequest, Rejection, Unschedulable
from .trial import smallest_change

__all__ = ["PlacementRequest", "Rejection", "Unschedulable", "place", "place_and_faults", "unjudged"]


def place(request: PlacementRequest, snapshot: Snapshot) -> Placement | Unschedulable:
    """A place whose claim fits into what is free now, or why there is none and what would change that.

    The same arguments get the same answer, so it may be asked speculatively. A worker that raises what nobody foresaw
    is passed over, and is one of the reasons.
    """
    return place_and_faults(request, snapshot)[0]


def place_and_faults(
    request: PlacementRequest, snapshot: Snapshot
) -> tuple[Placement | Unschedulable, Mapping[int, Exception]]:
    """``place``, and the exceptions of the workers that were passed over, by their ids.

    Raises an exception that all workers raise, or none alone: it is the deployment's.
    """
    try:
        return _place(request, snapshot), {}
    except Exception:  # what only some workers raise is theirs; anything else is raised again
        # To ask each by itself costs as much as many decisions, so that it is done only where the other is not enough.
        for asked in (_decide_among, _place_alone):
            faults = _faults(asked, request, snapshot)
            if 0 < len(faults) < len(snapshot.workers):
                try:
                    return _place_without(request, snapshot, faults), faults
                except Exception:  # noqa: BLE001  not all were found
                    continue
        raise


def _place_without(
    request: PlacementRequest, snapshot: Snapshot, faults: Mapping[int, Exception]
) -> Placement | Unschedulable:
    sound = {key: worker for key, worker in snapshot.workers.items() if key not in faults}
    placed = _place(request, attrs.evolve(snapshot, tables={**snapshot.tables, table_of(Worker): sound}))
    if isinstance(placed, Unschedulable):
        passed = (unjudged(snapshot.workers[key], error) for key, error in faults.items())
        placed = attrs.evolve(placed, reasons=(*placed.reasons, *passed))
    return placed


def unjudged(worker: Worker, error: Exception) -> Rejection:
    """Why a worker is passed over. The text of the exception is left out: it may hold a secret."""
    kind = type(error).__name__
    sentence = f"worker {worker.name} could not be looked at for a fault that nobody foresaw ({kind})"
    return Rejection(sentence=sentence, worker_id=worker.id, worker=worker.name)


def _place(request: PlacementRequest, snapshot: Snapshot) -> Placement | Unschedulable:
    found = decide(request, snapshot)
    if isinstance(found, Placement):
        return found
    return Unschedulable(reasons=found, smallest_change=smallest_change(request, snapshot, found))


def _decide_among(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> None:
    """Decide on a worker alone, where the others are there."""
    decide(request, snapshot, among=(worker,))


def _place_alone(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> None:
    """Place it where there is no other worker."""
    alone = {worker.id: worker}
    _place(request, attrs.evolve(snapshot, tables={**snapshot.tables, table_of(Worker): alone}))


def _faults(
    asked: Callable[[PlacementRequest, Worker, Snapshot], None], request: PlacementRequest, snapshot: Snapshot
) -> dict[int, Exception]:
    """What each worker raises when it is asked so, by its id."""
    found: dict[int, Exception] = {}
    for key, worker in snapshot.workers.items():
        try:
            asked(request, worker, snapshot)
        except Exception as error:  # noqa: BLE001  whatever it is, it is this worker's
            found[key] = error
    return found

"""Where a replica runs: the call that the scheduler makes."""

from __future__ import annotations

from collections.abc import Mapping

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
        for raises in (_raises_among, _raises_alone):
            raised = ((key, raises(request, worker, snapshot)) for key, worker in snapshot.workers.items())
            faults = {key: error for key, error in raised if error is not None}
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


def _raises_among(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> Exception | None:
    """What a worker raises when it alone is decided on."""
    try:
        decide(request, snapshot, among=(worker,))
    except Exception as error:  # noqa: BLE001  whatever it is, it is this worker's
        return error
    return None


def _raises_alone(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> Exception | None:
    """What a worker raises where there is no other."""
    alone = attrs.evolve(snapshot, tables={**snapshot.tables, table_of(Worker): {worker.id: worker}})
    try:
        _place(request, alone)
    except Exception as error:  # noqa: BLE001  whatever it is, it is this worker's
        return error
    return None

"""Where a replica runs: the one call the scheduler makes."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.domain.instance import Placement
from gpustack.domain.record import table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker

from .decision import decide
from .placement import PlacementRequest, Rejection, Unschedulable
from .remedy import smallest_change

__all__ = ["PlacementRequest", "Rejection", "Unschedulable", "place", "place_and_faults", "unjudged"]


def place(ask: PlacementRequest, snapshot: Snapshot) -> Placement | Unschedulable:
    """A place whose claim fits into what is free now, or why there is none and what would change that.

    Pure: it may be asked speculatively, and the same arguments get the same answer. A worker that cannot be looked at
    without a fault that nobody foresaw is passed over, and is one of the reasons.
    """
    return place_and_faults(ask, snapshot)[0]


def place_and_faults(
    ask: PlacementRequest, snapshot: Snapshot
) -> tuple[Placement | Unschedulable, Mapping[int, Exception]]:
    """The same, with what was met at the workers that were passed over, by their ids.

    Raises what looking raises where that is no fault of some workers among others: then it is one of the deployment.
    """
    try:
        return _place(ask, snapshot), {}
    except Exception:  # a fault of some workers only is theirs; any other rises again
        faults = _faults_of_workers(ask, snapshot)
        if not 0 < len(faults) < len(snapshot.workers):
            raise
    sound = {key: worker for key, worker in snapshot.workers.items() if key not in faults}
    placed = _place(ask, attrs.evolve(snapshot, tables={**snapshot.tables, table_of(Worker): sound}))
    if isinstance(placed, Unschedulable):
        passed = (unjudged(snapshot.workers[key], error) for key, error in faults.items())
        placed = attrs.evolve(placed, reasons=(*placed.reasons, *passed))
    return placed, faults


def unjudged(worker: Worker, error: Exception) -> Rejection:
    """Why a worker is passed over. It holds nothing of what the exception says: that may be anything."""
    kind = type(error).__name__
    sentence = f"worker {worker.name} could not be looked at for a fault that nobody foresaw ({kind})"
    return Rejection(sentence=sentence, worker_id=worker.id, worker=worker.name)


def _place(ask: PlacementRequest, snapshot: Snapshot) -> Placement | Unschedulable:
    found = decide(ask, snapshot)
    if isinstance(found, Placement):
        return found
    return Unschedulable(reasons=found, smallest_change=smallest_change(ask, snapshot, found))


def _faults_of_workers(ask: PlacementRequest, snapshot: Snapshot) -> dict[int, Exception]:
    """What looking at each worker alone raises."""
    found: dict[int, Exception] = {}
    for worker in snapshot.workers.values():
        alone = attrs.evolve(snapshot, tables={**snapshot.tables, table_of(Worker): {worker.id: worker}})
        try:
            _place(ask, alone)
        except Exception as error:  # noqa: BLE001  whatever it is, it is this worker's
            found[worker.id] = error
    return found

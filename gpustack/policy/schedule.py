"""Where a replica runs: the one call the scheduler makes."""

from __future__ import annotations

from gpustack.domain.instance import Placement
from gpustack.domain.snapshot import Snapshot

from .ask import Ask, Reason, Unschedulable
from .decision import decide
from .remedy import smallest_change

__all__ = ["Ask", "Reason", "Unschedulable", "place"]


def place(ask: Ask, snapshot: Snapshot) -> Placement | Unschedulable:
    """A place whose claim fits into what is free now, or why there is none and what would change that.

    Pure: it may be asked speculatively, and the same arguments get the same answer.
    """
    outcome = decide(ask, snapshot)
    if isinstance(outcome, Placement):
        return outcome
    return Unschedulable(reasons=outcome, smallest_change=smallest_change(ask, snapshot, outcome))

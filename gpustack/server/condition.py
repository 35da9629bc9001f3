"""What is said of a worker that is heard."""

from __future__ import annotations

from datetime import datetime

import attrs

from gpustack.domain.worker import Condition, WorkerState, WorkerStatus

_LONGEST = 1000


def ready(before: Condition | None, status: WorkerStatus, now: datetime) -> Condition:
    """Ready since it became so; hardware that could not be looked at is told, and is no reason to use nothing of it.

    The part of a status that was measured holds, and a detector that stumbles once must not move instances.
    """
    since = before.since if before is not None and before.state is WorkerState.READY else now
    return Condition(state=WorkerState.READY, since=since, why="; ".join(status.detection_faults)[:_LONGEST])


def told(before: Condition, status: WorkerStatus, now: datetime) -> Condition:
    """The condition after a new status: that it came does not make a silent worker ready, being heard does."""
    return ready(before, status, now) if before.state is WorkerState.READY else before


def with_reason(before: Condition, state: WorkerState, why: str, now: datetime) -> Condition:
    """Another state, or another reason for the one it has been in since before."""
    if before.state is state:
        return attrs.evolve(before, why=why)
    return Condition(state=state, since=now, why=why)

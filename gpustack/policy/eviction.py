"""Which instances have to leave their workers: those that are drained, and those whose taints (``NoExecute``) their
deployments do not tolerate, or no longer do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.taint import TaintEffect, seconds_tolerated

_AT_ONCE = datetime.min.replace(tzinfo=UTC)


def on_drained(instance: ModelInstance, snapshot: Snapshot) -> bool:
    """Whether one of its workers is being drained."""
    workers = (snapshot.workers.get(key) for key in workers_of(instance))
    return any(worker is not None and worker.draining for worker in workers)


def evicted_at(model: Model, instance: ModelInstance, snapshot: Snapshot) -> datetime | None:
    """When a taint of one of its workers ends it: the first instant of all; ``None`` where none ever does."""
    found: list[datetime] = []
    for key in workers_of(instance):
        worker = snapshot.workers.get(key)
        for taint in () if worker is None else worker.taints:
            if taint.effect is not TaintEffect.NO_EXECUTE:
                continue
            seconds = seconds_tolerated(taint, model.tolerations)
            if seconds is not None:
                since = taint.time_added if seconds else None
                found.append(_AT_ONCE if since is None else since + timedelta(seconds=seconds))
    return min(found, default=None)


def is_evicted(model: Model, instance: ModelInstance, snapshot: Snapshot, now: datetime | None) -> bool:
    """Whether a taint ends it. Without ``now`` nothing ends that is tolerated for a time."""
    at = evicted_at(model, instance, snapshot)
    return at is not None and at <= (_AT_ONCE if now is None else now)


def fits_nowhere(instance: ModelInstance) -> bool:
    """Whether it waits and the scheduler has said why."""
    return instance.state is InstanceState.PENDING and bool(instance.state_message)


def has_no_place(instance: ModelInstance) -> bool:
    """Whether it fits nowhere, or has failed: nobody need wait for it to serve."""
    return fits_nowhere(instance) or instance.state is InstanceState.ERROR

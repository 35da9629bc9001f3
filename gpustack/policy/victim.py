"""Which replica is missed least, when one too many must go."""

from __future__ import annotations

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import WorkerState

from .placement import Candidate, PlacementRequest
from .scores import spread


def victims(model: Model, instances: list[ModelInstance], snapshot: Snapshot) -> list[ModelInstance]:
    """Least missed first (behaviour.md s.3.9): not working, then little on devices, then crowded; then youngest."""
    return sorted(instances, key=lambda instance: (worth(model, instance, snapshot), -instance.id))


def worth(model: Model, instance: ModelInstance, snapshot: Snapshot) -> float:
    """0 to 100: how well it works counts most, then how much of it is on devices, then where it sits."""
    return (
        _state(instance, snapshot) * 100 + _offload(instance) * 10 + _place(model, instance, snapshot)
    ) / 111


def _state(instance: ModelInstance, snapshot: Snapshot) -> float:
    worker = None if instance.worker_id is None else snapshot.workers.get(instance.worker_id)
    lost = worker is None or worker.condition.state is not WorkerState.READY
    if lost or instance.state is InstanceState.ERROR:
        return 0.0
    return 100.0 if instance.state is InstanceState.RUNNING else 50.0


def _offload(instance: ModelInstance) -> float:
    claim = None if instance.placement is None else instance.placement.claim
    if claim is None or not claim.total_layers or claim.offload_layers is None:
        return 0.0
    return claim.offload_layers / claim.total_layers * 100


def _place(model: Model, instance: ModelInstance, snapshot: Snapshot) -> float:
    worker = None if instance.worker_id is None else snapshot.workers.get(instance.worker_id)
    if worker is None or instance.placement is None:
        return 0.0
    seat = Candidate(
        worker=worker, gpu_indexes=instance.placement.gpu_indexes, claim=instance.placement.claim
    )
    return spread.score(seat, PlacementRequest(model=model, instance=instance, engine_name=""), snapshot)

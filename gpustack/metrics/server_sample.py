"""The metrics of the server, from one observation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from prometheus_client.metrics_core import Metric as Family

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.ray import RayState
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import WorkerState
from gpustack.engines.registry import engine_for
from gpustack.errors import Invalid

from . import registry
from .family import Samples
from .process_sample import ProcessObservation, sample_process
from .traffic import TrafficCounts

CLUSTER_ID, CLUSTER_NAME = "1", "default"
"""The only cluster, under the names that other programs know."""
_CLUSTER = (CLUSTER_ID, CLUSTER_NAME)
_UNKNOWN = "unknown"
WAITS_FOR = ("reading_header", "no_worker", "no_ready_worker", "does_not_fit", "not_looked_at")


@attrs.frozen(kw_only=True)
class ServerObservation:
    """Everything that the metrics of the server are made of, at one moment."""

    snapshot: Snapshot
    silence: Mapping[int, float] = attrs.field(factory=dict)
    """Seconds since the last heartbeat of each worker, by its id."""
    open: bool = True
    leads: bool = True
    in_flight: int = 0
    commits: int = 0
    writes_waiting: int = 0
    fragile: Mapping[int, bool] = attrs.field(factory=dict)
    """Of models, by id, whether the loss of one worker would stop them; those of which it is not known are absent."""
    traffic: TrafficCounts = TrafficCounts()
    process: ProcessObservation | None = None


def server_families(state: ServerObservation) -> list[Family]:
    """All families of the server. Takes long in large clusters: call it in a thread."""
    samples = Samples()
    _cluster(state, samples)
    _workers(state, samples)
    _models(state, samples)
    _instances(state.snapshot, samples)
    _traffic(state, samples)
    of_process = [] if state.process is None else sample_process(state.process, samples)
    return [*samples.families, *of_process]


def scrape_targets(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The exporters of ready workers, in the format of Prometheus' HTTP service discovery."""
    found = [
        _address(worker.ip, worker.metrics_port)
        for worker in snapshot.workers.values()
        if worker.condition.state is WorkerState.READY and worker.ip and worker.metrics_port
    ]
    labels = {"cluster_id": CLUSTER_ID, "cluster_name": CLUSTER_NAME}
    return [{"labels": labels, "targets": sorted(found)}]


def ray_targets(snapshot: Snapshot, path: str) -> list[dict[str, Any]]:
    """The exporters of ready workers whose Ray is up, to be asked for Ray's own metrics at ``path``."""
    found = [
        _address(worker.ip, worker.metrics_port)
        for worker in snapshot.workers.values()
        if worker.condition.state is WorkerState.READY and worker.ip and worker.metrics_port
        if worker.status.ray is not None and worker.status.ray.state is RayState.UP
    ]
    labels = {"cluster_id": CLUSTER_ID, "cluster_name": CLUSTER_NAME, "__metrics_path__": path}
    return [{"labels": labels, "targets": sorted(found)}]


def waits_for(instance: ModelInstance, snapshot: Snapshot) -> str | None:
    """Which of ``WAITS_FOR`` keeps an instance from being placed; ``None`` for one that does not wait."""
    if instance.state is InstanceState.ANALYZING:
        return "reading_header"
    if instance.state is not InstanceState.PENDING:
        return None
    if not snapshot.workers:
        return "no_worker"
    ready = (w.condition.state is WorkerState.READY and w.takes_instances for w in snapshot.workers.values())
    if not any(ready):
        return "no_ready_worker"
    return "does_not_fit" if instance.state_message else "not_looked_at"


def runtime_of(model: Model) -> str:
    """The engine of a deployment, as named on the wire; ``unknown`` while that depends on its files."""
    try:
        return engine_for(model).wire_name
    except Invalid:
        return model.backend or _UNKNOWN


def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _cluster(state: ServerObservation, samples: Samples) -> None:
    samples.add(registry.CLUSTER, (*_CLUSTER, "gpustack"), 1)
    samples.add(registry.CLUSTER_STATUS, (*_CLUSTER, "ready" if state.open else "draining"), 1)
    samples.add(registry.LEADING, _CLUSTER, int(state.leads))
    samples.add(registry.COMMITS, _CLUSTER, state.commits)
    samples.add(registry.WRITES_WAITING, _CLUSTER, state.writes_waiting)
    samples.add(registry.IN_FLIGHT, _CLUSTER, state.in_flight)


def _workers(state: ServerObservation, samples: Samples) -> None:
    for worker in state.snapshot.workers.values():
        named = (*_CLUSTER, worker.id, worker.name)
        samples.add(registry.WORKER_STATUS, (*named, worker.condition.state.value), 1)
        samples.add(registry.WORKER_SILENCE, named, state.silence.get(worker.id))


def _models(state: ServerObservation, samples: Samples) -> None:
    snapshot = state.snapshot
    running: dict[int, int] = {}
    for instance in snapshot.instances.values():
        if instance.state is InstanceState.RUNNING:
            running[instance.model_id] = running.get(instance.model_id, 0) + 1
    for model in snapshot.models.values():
        named = (*_CLUSTER, model.id, model.name)
        version, source = model.backend_version or _UNKNOWN, model.source
        samples.add(
            registry.MODEL, (*named, runtime_of(model), version, source.kind.value, source.readable), 1
        )
        samples.add(registry.MODEL_DESIRED, named, model.replicas)
        samples.add(registry.MODEL_RUNNING, named, running.get(model.id, 0))
        fragile = state.fragile.get(model.id)
        samples.add(registry.MODEL_SURVIVES, named, None if fragile is None else int(not fragile))


def _instances(snapshot: Snapshot, samples: Samples) -> None:
    waiting = dict.fromkeys(WAITS_FOR, 0)
    for instance in snapshot.instances.values():
        worker = snapshot.workers.get(instance.worker_id or 0)
        where = (_UNKNOWN, _UNKNOWN) if worker is None else (worker.id, worker.name)
        model = (instance.model_id, instance.model_name)
        samples.add(
            registry.INSTANCE_STATUS, (*_CLUSTER, *where, *model, instance.name, instance.state.value), 1
        )
        samples.add(registry.INSTANCE_RESTARTS, (*_CLUSTER, *model, instance.name), instance.restart_count)
        reason = waits_for(instance, snapshot)
        if reason is not None:
            waiting[reason] += 1
    for reason, count in waiting.items():
        samples.add(registry.PENDING, (*_CLUSTER, reason), count)


def _traffic(state: ServerObservation, samples: Samples) -> None:
    models, seen = state.snapshot.models, state.traffic
    for key, count in seen.requests.items():
        model = models.get(key.model_id or 0)
        if model is not None or key.model_id is None:
            named = ("", "") if model is None else (model.id, model.name)
            samples.add(registry.REQUESTS, (*_CLUSTER, *named, key.route, key.status), count)
    for model_id, waited in seen.first_byte.items():
        if model_id in models:
            named = (model_id, models[model_id].name)
            samples.distribution(registry.FIRST_BYTE, (*_CLUSTER, *named), waited)
    for refused, count in seen.refused.items():
        samples.add(registry.REFUSED, (*_CLUSTER, *refused), count)
    for (model_id, kind), count in seen.tokens.items():
        if model_id in models:
            samples.add(registry.TOKENS, (*_CLUSTER, model_id, models[model_id].name, kind), count)

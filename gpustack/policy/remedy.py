"""A change that would make a replica fit, as data: which fields to set, or what to add; and the world in which that is
done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from gpustack.domain.affinity import AntiAffinity, AntiAffinityTerm
from gpustack.domain.artifact import ModelSource
from gpustack.domain.device import Device, DeviceMemory
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.taint import Toleration
from gpustack.domain.worker import (
    Condition,
    EngineBuild,
    Memory,
    SystemReserved,
    Worker,
    WorkerState,
    WorkerStatus,
)
from gpustack.engines.program import programs, requirements_of, version_of

from .placement import PlacementRequest

MODEL, WORKER, INSTANCE = "model", "worker", "model_instance"
REMOVED = "removed"
"""The field of an instance that says that it is to end."""
GPU_FOREIGN = "gpu_foreign"
"""Of a worker: ``bytes`` that other programs use of the GPU ``index``."""


@attrs.frozen(kw_only=True)
class FieldChange:
    """A field of a record, and the value that it is to have."""

    of: str
    """``model``, ``worker`` or ``model_instance``."""
    id: int
    name: str
    field: str
    """As the API calls it; also what only happens to a record: ``state`` and ``engines`` of a worker, ``removed`` of an
    instance."""
    value: Any


@attrs.frozen(kw_only=True)
class Addition:
    """Machines or GPUs that are not there. Bytes.

    With ``worker_id`` a GPU for that worker, else workers: ``like`` one that is there, or as described.
    """

    count: int = 1
    worker_id: int | None = None
    like: int | None = None
    """The id of the worker that is copied (with its hardware and engines, empty), or one of whose GPUs is."""
    like_gpu: int | None = None
    """The index of that GPU."""
    gpu_type: str = ""
    vram: int | None = None
    """All memory of the GPU."""
    ram: int | None = None
    """All memory of the worker."""
    labels: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Remedy:
    """One change, the smallest of its kind: with all that it names done, the replica has a place.

    ``by_api`` tells that the changes are made through the API; others are made on machines, or come about by waiting.
    """

    kind: str
    sentence: str
    changes: tuple[FieldChange, ...] = ()
    added: Addition | None = None
    by_api: bool = False


KnownFacts = Callable[[ModelSource], ModelFacts | None]
"""What was read of the header at a source; ``None`` where nothing was."""
_SOURCE = frozenset(field.name for field in attrs.fields(ModelSource))


def applied(
    remedy: Remedy, request: PlacementRequest, snapshot: Snapshot, facts_of: KnownFacts
) -> tuple[PlacementRequest, Snapshot]:
    """The request and the world once the remedy is done."""
    gone: list[int] = []
    workers: dict[int, Worker] = {}
    for change in remedy.changes:
        if change.of == INSTANCE:
            gone.append(change.id)
        elif change.of == WORKER:
            before = workers.get(change.id) or snapshot.workers[change.id]
            workers[change.id] = _changed_worker(before, change)
        elif change.id == request.model.id:
            request = _changed_request(request, change, facts_of)
    if remedy.added is not None:
        workers.update((worker.id, worker) for worker in workers_added(remedy.added, request, snapshot))
    if not gone and not workers:
        return request, snapshot
    return request, snapshot.changed(*workers.values(), without=gone)


def workers_added(added: Addition, request: PlacementRequest, snapshot: Snapshot) -> list[Worker]:
    """The new workers; where a GPU is added, the worker with it."""
    if added.worker_id is not None:
        return [_with_gpu(snapshot.workers[added.worker_id], added, snapshot)]
    first = max(snapshot.workers, default=0) + 1
    return [_new_worker(first + number, added, request, snapshot) for number in range(added.count)]


def removal(instance: ModelInstance) -> FieldChange:
    """That an instance ends, and its claim with it."""
    return FieldChange(of=INSTANCE, id=instance.id, name=instance.name, field=REMOVED, value=True)


def of_worker(worker: Worker, field: str, value: Any) -> FieldChange:
    return FieldChange(of=WORKER, id=worker.id, name=worker.name, field=field, value=value)


def of_model(request: PlacementRequest, field: str, value: Any) -> FieldChange:
    model = request.model
    return FieldChange(of=MODEL, id=model.id, name=model.name, field=field, value=value)


def _changed_request(
    request: PlacementRequest, change: FieldChange, facts_of: KnownFacts
) -> PlacementRequest:
    model = request.model
    if change.field not in _SOURCE:
        return attrs.evolve(
            request, model=attrs.evolve(model, **{change.field: _domain(change.field, change.value)})
        )
    source = attrs.evolve(model.source, **{change.field: change.value})
    return attrs.evolve(request, model=attrs.evolve(model, source=source), facts=facts_of(source))


def _domain(field: str, value: Any) -> Any:
    if field == "tolerations":
        return tuple(Toleration(**one) for one in value)
    if field == "anti_affinity" and value is not None:
        kinds = {kind: tuple(AntiAffinityTerm(**term) for term in terms) for kind, terms in value.items()}
        return AntiAffinity(**kinds)
    return tuple(value) if isinstance(value, list) else value


def _changed_worker(worker: Worker, change: FieldChange) -> Worker:
    match change.field:
        case "state":
            return attrs.evolve(worker, condition=Condition(state=WorkerState(change.value)))
        case _ if change.field == GPU_FOREIGN:
            devices = tuple(
                _used_by_others(device, change.value["bytes"])
                if device.index == change.value["index"]
                else device
                for device in worker.status.gpu_devices
            )
            return attrs.evolve(worker, status=attrs.evolve(worker.status, gpu_devices=devices))
        case "system_reserved":
            return attrs.evolve(worker, system_reserved=SystemReserved(**change.value))
        case "engines":
            kinds = tuple({device.type for device in worker.status.gpu_devices})
            builds = tuple(EngineBuild(**build, drives=kinds) for build in change.value)
            status = attrs.evolve(worker.status, engines=(*worker.status.engines, *builds))
            return attrs.evolve(worker, status=status)
        case _:
            return attrs.evolve(worker, **{change.field: _domain(change.field, change.value)})


def _used_by_others(device: Device, size: int) -> Device:
    return attrs.evolve(device, memory=attrs.evolve(device.memory, foreign=size))


def _with_gpu(worker: Worker, added: Addition, snapshot: Snapshot) -> Worker:
    there = worker.status.gpu_devices
    index = max((device.index for device in there), default=-1) + 1
    model = _gpu_like(added, snapshot)
    memory = DeviceMemory(
        total=added.vram, is_unified_memory=model is not None and model.memory.is_unified_memory
    )
    if model is None:
        device = Device(
            index=index, name=added.gpu_type, vendor=added.gpu_type, type=added.gpu_type, memory=memory
        )
    else:
        device = attrs.evolve(model, index=index, memory=memory, fault=None)
    return attrs.evolve(worker, status=attrs.evolve(worker.status, gpu_devices=(*there, device)))


def _gpu_like(added: Addition, snapshot: Snapshot) -> Device | None:
    if added.like is None or added.like_gpu is None:
        return None
    return snapshot.workers[added.like].device(added.like_gpu)


def _new_worker(key: int, added: Addition, request: PlacementRequest, snapshot: Snapshot) -> Worker:
    ready = Condition(state=WorkerState.READY)
    if added.like is not None:
        like = snapshot.workers[added.like]
        labels = {**like.labels, **added.labels}
        return attrs.evolve(
            like.emptied, id=key, name=f"{like.name}+{key}", worker_uuid=f"+{key}", labels=labels,
            cordoned=False, draining=False, condition=ready,
        )  # fmt: skip
    gpus: tuple[Device, ...] = ()
    if added.vram is not None:
        kind = added.gpu_type
        gpus = (Device(index=0, name=kind, vendor=kind, type=kind, memory=DeviceMemory(total=added.vram)),)
    model = request.model
    build = EngineBuild(
        engine=request.engine_name,
        version=version_of(model.backend_version),
        drives=tuple(device.type for device in gpus),
        requirements=requirements_of(model, programs().get(request.engine_name)),
    )
    status = WorkerStatus(memory=Memory(total=added.ram), gpu_devices=gpus, engines=(build,))
    return Worker(
        id=key, name=f"+{key}", worker_uuid=f"+{key}", ip="192.0.2.1", labels=dict(added.labels),
        status=status, condition=ready,
    )  # fmt: skip

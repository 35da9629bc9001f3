"""The route of each model, as a function of a snapshot: which endpoints serve it, or why none does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.lifecycle import SERVING, InstanceState
from gpustack.domain.model import Model
from gpustack.domain.route import Endpoint, ModelRoute
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import WorkerState
from gpustack.engines import parameters
from gpustack.engines.adapter import AdapterSelection, selection_of
from gpustack.engines.llama_cpp import NO_PROMPT_CACHE_FLAG, PROMPT_CACHE_FLAG
from gpustack.engines.registry import engine_at, engine_for
from gpustack.engines.rerank import rerank_form
from gpustack.errors import Invalid
from gpustack.nursery.quarantine import Quarantine

_STOPPED: Final = "it is stopped (0 replicas)"
_BEING_CREATED: Final = "its instances are being created"
_PENDING_REASONS: Final = {
    InstanceState.PENDING: "it waits for a place to run",
    InstanceState.ANALYZING: "it waits for a place to run",
    InstanceState.SCHEDULED: "it is starting",
    InstanceState.INITIALIZING: "it is starting",
    InstanceState.DOWNLOADING: "its files are being fetched",
    InstanceState.STARTING: "it is starting",
    InstanceState.ERROR: "it does not start; its administrators see why",
    InstanceState.UNREACHABLE: "nothing is heard of the machine that runs it",
}
"""For every caller: they name no machine and no path, and quote no engine."""
_NOT_LOADED: Final = (
    "is not loaded by any replica: that takes a moment, or cannot be; its administrators see why"
)
_NO_ROUTE: Final = "the server met a fault with it that nobody foresaw; its log tells more"
_ROUTED: Final = SERVING | {InstanceState.UNREACHABLE}
"""States of the instances that are asked."""


def routes_of(snapshot: Snapshot, local_worker: str | None, faults: Quarantine) -> dict[str, ModelRoute]:
    """A route for every deployed model, by its name. A route without endpoints says why.

    ``local_worker`` is the uuid of the worker on this machine. A model or an instance whose route cannot be made is set
    aside in ``faults``, and the others have theirs.
    """
    by_model: dict[int, list[ModelInstance]] = {}
    for instance in snapshot.instances.values():
        if instance.deleted_at is None:
            by_model.setdefault(instance.model_id, []).append(instance)
    found: dict[str, ModelRoute] = {}
    for model in snapshot.models.values():
        with faults.row(("model", model.id)) as trial:
            found[model.name] = _route(model, by_model.get(model.id, ()), snapshot, local_worker, faults)
        if trial.fault is not None:
            found[model.name] = ModelRoute(
                model_id=model.id,
                model_name=model.name,
                access=model.access,
                allowed_user_ids=frozenset(model.allowed_user_ids or ()),
                pending_reason=_NO_ROUTE,
                pending_details=trial.fault.sentence,
            )
    for model in snapshot.models.values():
        for adapter in model.lora_adapters:
            # A deployment that has this very name keeps it.
            own = f"{model.name}:{adapter.name}"
            found.setdefault(
                own, _of_adapter(found[model.name], model, adapter.name, by_model.get(model.id, ()))
            )
    return found


def _of_adapter(route: ModelRoute, model: Model, name: str, instances: Sequence[ModelInstance]) -> ModelRoute:
    """The route of an adapter: the replicas of its model that have it."""
    try:
        by_scale = selection_of(engine_for(model)) is AdapterSelection.BY_SCALE
    except Invalid:
        by_scale = model.source.names_gguf
    endpoints = tuple(endpoint for endpoint in route.endpoints if name in endpoint.adapters)
    found = attrs.evolve(route, endpoints=endpoints, adapter=name, adapter_by_scale=by_scale)
    if endpoints or not route.endpoints:
        return found
    reason = f"its adapter '{name}' {_NOT_LOADED}"
    said = [f"{one.name}: {one.state_message}" for one in instances if one.state_message]
    return attrs.evolve(found, pending_reason=reason, pending_details="; ".join((reason, *said)))


def _route(
    model: Model,
    instances: Sequence[ModelInstance],
    snapshot: Snapshot,
    local_worker: str | None,
    faults: Quarantine,
) -> ModelRoute:
    endpoints: list[Endpoint] = []
    for instance in instances:
        with faults.row(("instance", instance.id)):
            endpoint = _endpoint(instance, snapshot, local_worker)
            if endpoint is not None:
                endpoints.append(endpoint)
    flags = (PROMPT_CACHE_FLAG, NO_PROMPT_CACHE_FLAG)
    reason, details = _pending(instances, model.replicas)
    silent = (i.state_message for i in instances if i.state is InstanceState.UNREACHABLE)
    return ModelRoute(
        model_id=model.id,
        model_name=model.name,
        categories=model.categories,
        access=model.access,
        allowed_user_ids=frozenset(model.allowed_user_ids or ()),
        endpoints=tuple(endpoints),
        context=_context(model, instances),
        pending_reason=reason,
        pending_details=details,
        keeps_no_prompts=parameters.last_of(model.backend_parameters, flags) == NO_PROMPT_CACHE_FLAG,
        rerank=rerank_form(model),
        silence="; ".join(dict.fromkeys(message for message in silent if message)),
    )


def _endpoint(instance: ModelInstance, snapshot: Snapshot, local_worker: str | None) -> Endpoint | None:
    """An instance of a silent worker keeps its endpoint: whether its engine answers is found out by asking it. One that
    runs on several workers is taken for silent when any of them is."""
    worker = snapshot.workers.get(instance.worker_id or 0)
    if instance.state not in _ROUTED or worker is None or instance.port is None:
        return None
    direct = worker.worker_uuid == local_worker
    silent = instance.state is InstanceState.UNREACHABLE or worker.condition.state is not WorkerState.READY
    followers = (snapshot.workers.get(key) for key in workers_of(instance) - {worker.id})
    maimed = any(one is None or one.condition.state is not WorkerState.READY for one in followers)
    return Endpoint(
        instance_id=instance.id,
        instance_name=instance.name,
        worker_id=worker.id,
        host="127.0.0.1" if direct else worker.ip,
        worker_port=worker.port,
        engine_port=instance.port,
        adapters=instance.lora_adapters,
        worker_uuid=worker.worker_uuid,
        direct=direct,
        quiet=maimed or (silent and not direct),
    )


def _context(model: Model, instances: Sequence[ModelInstance]) -> int | None:
    """Tokens; ``None`` while only the model's files, which no worker has yet, tell which engine runs it."""
    path = next((instance.resolved_path for instance in instances if instance.resolved_path), None)
    engine = engine_at(model, path)
    return None if engine is None else engine.context(model)


def _pending(instances: Sequence[ModelInstance], replicas: int) -> tuple[str, str]:
    """Why nothing serves the model: for every caller, and in detail for administrators."""
    if replicas == 0:
        return _STOPPED, _STOPPED
    waiting = min((i for i in instances if i.state not in SERVING), key=lambda i: i.id, default=None)
    if waiting is None:
        return _BEING_CREATED, _BEING_CREATED
    message = f": {waiting.state_message}" if waiting.state_message else ""
    return (
        _PENDING_REASONS.get(waiting.state, "it is not ready yet"),
        f"{waiting.name} is {waiting.state.value}{message}",
    )

"""The routing table: which replicas serve a model now, how busy each is, and which just failed to answer."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import inf

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import SERVING, InstanceState
from gpustack.domain.model import Model
from gpustack.domain.route import Endpoint, ModelRoute
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker, WorkerState
from gpustack.engines import parameters
from gpustack.engines.llama_cpp import NO_PROMPT_CACHE_FLAG, PROMPT_CACHE_FLAG
from gpustack.engines.registry import engine_for
from gpustack.errors import Invalid
from gpustack.gateway.worker_requests import WorkerRequests
from gpustack.http1.upstream_exchange import UpstreamExchange
from gpustack.nursery.quarantine import Quarantine
from gpustack.policy.balance import pick
from gpustack.store.store import Store

_SUSPECT_FOR = 5.0
"""Seconds an endpoint that refused a connection is passed over while others can be asked."""


_SILENT = "calls to silent workers"
_LOOK_AGAIN = 2.0
"""Seconds."""
_NOTHING: AbstractContextManager[object] = nullcontext()

_STOPPED = "it is stopped (0 replicas)"
_BEING_CREATED = "its instances are being created"
_IN_SHORT = {
    InstanceState.PENDING: "it waits for a place to run",
    InstanceState.ANALYZING: "it waits for a place to run",
    InstanceState.SCHEDULED: "it is starting",
    InstanceState.INITIALIZING: "it is starting",
    InstanceState.DOWNLOADING: "its files are being fetched",
    InstanceState.STARTING: "it is starting",
    InstanceState.ERROR: "it does not start; its administrators see why",
    InstanceState.UNREACHABLE: "nothing is heard of the machine that runs it",
}
"""For anybody: no name of a machine, no path, no word of an engine."""
_NO_ROUTE = "the server met a fault with it that nobody foresaw; its log tells more"
_ASKED = SERVING | {InstanceState.UNREACHABLE}


@attrs.frozen(eq=False)
class _RoutingInputs:
    """What the routes were made of."""

    models: Mapping[int, Model]
    instances: Mapping[int, ModelInstance]
    reached: Mapping[int, tuple[object, ...]]


@attrs.define(eq=False, repr=False)
class Endpoints:
    """Owns routes, in-flight counts and suspicions. Routes are made anew after each commit that alters them."""

    _store: Store
    _rng: random.Random
    _local_worker: str | None = None
    """The uuid of the worker inside this daemon: its engines are reached directly."""
    _routes: Mapping[str, ModelRoute] = attrs.field(factory=dict)
    _made_of: _RoutingInputs | None = None
    _in_flight: dict[int, int] = attrs.field(factory=dict)
    _suspects: dict[int, float] = attrs.field(factory=dict)
    _calls: WorkerRequests = attrs.field(factory=WorkerRequests)
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("endpoints"))
    name: str = "endpoints"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._store.watch({"models", "model_instances", "workers"}) as wake:
            self._look()
            task_status.started()
            while True:
                left = True
                with self._faults.row(_SILENT):
                    left = self._calls.give_up(self._silent_workers(), trio.current_time())
                # What still answers goes on; it is looked at again as long as its worker is silent.
                await wake.wait(min(_LOOK_AGAIN if left else inf, self._faults.due_in()))
                self._look()

    def _silent_workers(self) -> list[int]:
        """Those that stopped speaking without a word, or long after their goodbye, as the server judges."""
        snapshot = self._store.snapshot
        cut_off = {i.worker_id for i in snapshot.instances.values() if i.state is InstanceState.UNREACHABLE}
        return [
            worker.id
            for worker in snapshot.workers.values()
            if worker.condition.state is not WorkerState.READY
            and (not worker.leaving or worker.id in cut_off)
        ]

    def _look(self) -> None:
        """Workers tell of their load all the time, and nothing of that matters here."""
        snapshot = self._store.snapshot
        reached: dict[int, tuple[object, ...]] = {}
        for worker in snapshot.workers.values():
            with self._faults.row(("worker", worker.id)):
                reached[worker.id] = _reached(worker)
        made_of = self._made_of
        if (
            made_of is not None
            and not self._faults.is_due()
            and snapshot.models is made_of.models  # nobody wrote to it since
            and snapshot.instances is made_of.instances
            and reached == made_of.reached
        ):
            return
        self._made_of = _RoutingInputs(snapshot.models, snapshot.instances, reached)
        self._routes = routes(snapshot, self._local_worker, self._faults)
        living = {endpoint.instance_id for route in self._routes.values() for endpoint in route.endpoints}
        self._suspects = {key: until for key, until in self._suspects.items() if key in living}

    def route(self, model_name: str) -> ModelRoute | None:
        """The route of that name, if such a model is deployed."""
        return self._routes.get(model_name)

    def pick(self, route: ModelRoute, tried: Collection[int]) -> Endpoint | None:
        """The endpoint to ask next, none twice; one that just failed only when there is no other, and one whose worker
        is silent only when there is none of those either."""
        quiet = {endpoint.instance_id for endpoint in route.endpoints if endpoint.quiet}
        if quiet:
            quiet.update(tried)
        if self._suspects:
            now = trio.current_time()
            doubted = {key for key, until in self._suspects.items() if until > now}
            doubted.update(quiet or tried)
            found = pick(route.endpoints, self._in_flight, doubted, self._rng)
            if found is not None:
                return found
        if quiet:
            found = pick(route.endpoints, self._in_flight, quiet, self._rng)
            if found is not None:
                return found
        return pick(route.endpoints, self._in_flight, tried, self._rng)

    def people(self) -> tuple[object, ...]:
        """The tables that decide who may ask: the same objects as long as nothing in them has changed."""
        return self._store.snapshot.users, self._store.snapshot.api_keys

    def counting(self, endpoint: Endpoint) -> AbstractContextManager[None]:
        """One request under way on the endpoint."""
        return _InFlightCount(self._in_flight, endpoint.instance_id)

    def under_way(self, endpoint: Endpoint, call: UpstreamExchange) -> AbstractContextManager[object]:
        """A request that is given up, within seconds, when nothing is heard of the endpoint's worker any more.

        An engine on this machine has no worker between it and us: there is nothing to give up.
        """
        return _NOTHING if endpoint.direct else self._calls.holding(endpoint.worker_id, call)

    def suspect(self, endpoint: Endpoint) -> bool:
        """It did not answer: others first, for a while. Whether that is news."""
        now = trio.current_time()
        known = self._suspects.get(endpoint.instance_id, now) > now
        self._suspects[endpoint.instance_id] = now + _SUSPECT_FOR
        return not known

    @property
    def in_flight(self) -> int:
        """Requests under way in all."""
        return sum(self._in_flight.values())

    def __repr__(self) -> str:
        serving = sum(len(route.endpoints) for route in self._routes.values())
        return f"<Endpoints: {len(self._routes)} models, {serving} replicas, {self.in_flight} requests>"


class _InFlightCount:
    """One more of the key, for as long as it is entered; a generator would cost twice as much."""

    __slots__ = ("_counts", "_key")

    def __init__(self, counts: dict[int, int], key: int) -> None:
        self._counts = counts
        self._key = key

    def __enter__(self) -> None:
        self._counts[self._key] = self._counts.get(self._key, 0) + 1

    def __exit__(self, *_: object) -> None:
        left = self._counts[self._key] - 1
        if left:
            self._counts[self._key] = left
        else:
            del self._counts[self._key]


def routes(snapshot: Snapshot, local_worker: str | None, faults: Quarantine) -> dict[str, ModelRoute]:
    """A route for every deployed model; one that nothing serves says why, and so does one that cannot be made."""
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
    rows = {"model": snapshot.models, "instance": snapshot.instances, "worker": snapshot.workers}
    faults.keep_only({_SILENT, *((kind, key) for kind, table in rows.items() for key in table)})
    return found


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
    return ModelRoute(
        model_id=model.id,
        model_name=model.name,
        categories=model.categories,
        access=model.access,
        allowed_user_ids=frozenset(model.allowed_user_ids or ()),
        endpoints=tuple(endpoints),
        context=_context(model),
        pending_reason=_reason(instances, model.replicas),
        pending_details=_details(instances, model.replicas),
        keeps_no_prompts=_keeps_no_prompts(model),
        silence=_silence(instances),
    )


def _endpoint(instance: ModelInstance, snapshot: Snapshot, local_worker: str | None) -> Endpoint | None:
    """A silent worker keeps its endpoints: whether its engine answers is found out by asking it."""
    worker = snapshot.workers.get(instance.worker_id or 0)
    if instance.state not in _ASKED or worker is None or instance.port is None:
        return None
    direct = worker.worker_uuid == local_worker
    return Endpoint(
        instance_id=instance.id,
        instance_name=instance.name,
        worker_id=worker.id,
        host="127.0.0.1" if direct else worker.ip,
        worker_port=worker.port,
        engine_port=instance.port,
        worker_uuid=worker.worker_uuid,
        direct=direct,
        quiet=not direct and _is_quiet(instance, worker),
    )


def _is_quiet(instance: ModelInstance, worker: Worker) -> bool:
    return instance.state is InstanceState.UNREACHABLE or worker.condition.state is not WorkerState.READY


def _context(model: Model) -> int | None:
    try:
        return engine_for(model).context(model)
    except Invalid:  # only its files tell which engine runs it
        return None


def _reached(worker: Worker) -> tuple[object, ...]:
    """All that a route takes from a worker."""
    return worker.ip, worker.port, worker.worker_uuid, worker.condition.state


def _silence(instances: Sequence[ModelInstance]) -> str:
    """Of which workers nothing is heard, each once."""
    said = (i.state_message for i in instances if i.state is InstanceState.UNREACHABLE)
    return "; ".join(dict.fromkeys(message for message in said if message))


def _reason(instances: Sequence[ModelInstance], replicas: int) -> str:
    waiting = _first_waiting(instances)
    if replicas == 0:
        return _STOPPED
    return _BEING_CREATED if waiting is None else _IN_SHORT.get(waiting.state, "it is not ready yet")


def _details(instances: Sequence[ModelInstance], replicas: int) -> str:
    waiting = _first_waiting(instances)
    if replicas == 0 or waiting is None:
        return _STOPPED if replicas == 0 else _BEING_CREATED
    message = f": {waiting.state_message}" if waiting.state_message else ""
    return f"{waiting.name} is {waiting.state.value}{message}"


def _first_waiting(instances: Sequence[ModelInstance]) -> ModelInstance | None:
    waiting = [instance for instance in instances if instance.state not in SERVING]
    return min(waiting, key=lambda instance: instance.id, default=None)


def _keeps_no_prompts(model: Model) -> bool:
    flags = (PROMPT_CACHE_FLAG, NO_PROMPT_CACHE_FLAG)
    return parameters.last_of(model.backend_parameters, flags) == NO_PROMPT_CACHE_FLAG

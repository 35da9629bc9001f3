"""The routing table: which replicas serve a model now, how busy each is, and which just failed to answer."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from math import inf
from types import TracebackType
from typing import Final

import attrs
import trio

from gpustack.domain.access import Principal
from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.route import Endpoint, ModelRoute
from gpustack.domain.worker import Worker, WorkerState
from gpustack.gateway.model_route import routes_of
from gpustack.http1.upstream_exchange import UpstreamExchange
from gpustack.nursery.quarantine import Quarantine
from gpustack.policy.access import may_use, unknown
from gpustack.policy.balance import pick
from gpustack.store.store import Store

_SUSPECT_FOR: Final = 5.0
"""Seconds in which an endpoint that failed is asked only when no other is left (Envoy: outlier detection)."""
_SILENT: Final = "calls to silent workers"
_LOOK_AGAIN: Final = 2.0
"""Seconds."""
_ANSWERING: Final = 5.0
"""Seconds: an engine that sent something within them is reachable, whatever its worker's heartbeats say."""


@attrs.define(eq=False, repr=False)
class WorkerRequests:
    """The requests in flight to each worker, so that they can be given up when its machine has vanished."""

    _requests: dict[int, set[UpstreamExchange]] = attrs.field(factory=dict)
    """By worker id; a worker without any is not in it."""
    _doubted: dict[int, set[UpstreamExchange]] = attrs.field(factory=dict)
    """Of each silent worker the requests that were in flight when it fell silent. What is sent to it later is sent
    because no other replica is left, and has the usual time."""

    def add(self, worker_id: int, request: UpstreamExchange) -> None:
        """A request to the worker begins. ``discard`` it in the end."""
        self._requests.setdefault(worker_id, set()).add(request)

    def discard(self, worker_id: int, request: UpstreamExchange) -> None:
        """A request to the worker has ended."""
        requests = self._requests[worker_id]
        requests.discard(request)
        if not requests:
            del self._requests[worker_id]

    def give_up(self, silent: Collection[int], now: float) -> bool:
        """Abort the requests to workers that fell silent, but for those that are being answered all the same.

        Returns whether some are left that must be looked at again. ``now`` is by the clock of the connections'
        reactor, which is Trio's.
        """
        for worker_id in self._doubted.keys() - set(silent):
            del self._doubted[worker_id]
        for worker_id in silent:
            if worker_id not in self._doubted:
                self._doubted[worker_id] = set(self._requests.get(worker_id, ()))
        for worker_id, doubted in self._doubted.items():
            doubted &= self._requests.get(worker_id, set())
            for request in [request for request in doubted if request.heard < now - _ANSWERING]:
                doubted.remove(request)
                request.abort()
        return any(self._doubted.values())

    def __repr__(self) -> str:
        return f"<WorkerRequests: {sum(map(len, self._requests.values()))} to {len(self._requests)} workers>"


@attrs.frozen(eq=False)
class _RoutingInputs:
    """What the routes were made of."""

    models: Mapping[int, Model]
    instances: Mapping[int, ModelInstance]
    workers: Mapping[int, Worker]
    reached: Mapping[int, tuple[object, ...]]
    """Of each worker all that routes depend on."""
    running: frozenset[int]
    """The workers that instances run on."""

    def lead_to_the_same(self, other: _RoutingInputs) -> bool:
        """Whether the routes made of ``other`` would be these. A table is the same object until it is written to."""
        return (
            other.models is self.models
            and other.instances is self.instances
            and all(other.reached.get(key) == self.reached.get(key) for key in self.running)
        )


@attrs.define(eq=False, repr=False)
class Endpoints:
    """Owns the routes, the requests in flight and the suspicions. A service: it makes the routes anew after each
    commit that alters them, and gives up requests to workers that have vanished."""

    _store: Store
    _rng: random.Random
    _local_worker: str | None = None
    """The uuid of the worker inside this daemon: its engines are reached directly."""
    _routes: Mapping[str, ModelRoute] = attrs.field(factory=dict)
    _made_of: _RoutingInputs | None = None
    _in_flight: dict[int, int] = attrs.field(factory=dict)
    """By instance id; an instance without any is not in it."""
    _suspects: dict[int, float] = attrs.field(factory=dict)
    """Until when each instance is suspected, by Trio's clock."""
    _requests: WorkerRequests = attrs.field(factory=WorkerRequests)
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("endpoints"))
    name: str = "endpoints"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._store.watch({"models", "model_instances", "workers"}) as wake:
            self._refresh()
            task_status.started()
            while True:
                left = True
                with self._faults.row(_SILENT):
                    left = self._requests.give_up(self._silent_workers(), trio.current_time())
                # Requests that are still answered go on; they are looked at again as long as their worker is silent.
                await wake.wait(min(_LOOK_AGAIN if left else inf, self._faults.due_in()))
                self._refresh()

    def _silent_workers(self) -> list[int]:
        """Those that stopped sending heartbeats: without having said that they stop, or long after that."""
        snapshot = self._store.snapshot
        silent = [one for one in snapshot.workers.values() if one.condition.state is not WorkerState.READY]
        if not any(worker.leaving for worker in silent):
            return [worker.id for worker in silent]
        cut_off = {i.worker_id for i in snapshot.instances.values() if i.state is InstanceState.UNREACHABLE}
        return [worker.id for worker in silent if not worker.leaving or worker.id in cut_off]

    def _refresh(self) -> None:
        """Make the routes anew, unless nothing that they depend on has changed: workers report their load often."""
        snapshot = self._store.snapshot
        made_of = None if self._faults.is_due() else self._made_of
        reached = self._reached_workers(snapshot.workers, made_of)
        if made_of is not None and made_of.instances is snapshot.instances:
            running = made_of.running
        else:
            running = frozenset[int]().union(*map(workers_of, snapshot.instances.values()))
        self._made_of = _RoutingInputs(
            snapshot.models, snapshot.instances, snapshot.workers, reached, running
        )
        if made_of is not None and made_of.lead_to_the_same(self._made_of):
            return
        self._routes = routes_of(snapshot, self._local_worker, self._faults)
        rows = {"model": snapshot.models, "instance": snapshot.instances, "worker": snapshot.workers}
        self._faults.keep_only({_SILENT, *((kind, key) for kind, table in rows.items() for key in table)})
        living = {endpoint.instance_id for route in self._routes.values() for endpoint in route.endpoints}
        self._suspects = {key: until for key, until in self._suspects.items() if key in living}

    def _reached_workers(
        self, workers: Mapping[int, Worker], made_of: _RoutingInputs | None
    ) -> Mapping[int, tuple[object, ...]]:
        """What routes take from each worker; of those that are the same records as before it is known."""
        before: Mapping[int, Worker] = {} if made_of is None else made_of.workers
        if made_of is not None and workers is before:
            return made_of.reached
        found = {} if made_of is None else {k: v for k, v in made_of.reached.items() if k in workers}
        for worker in [one for key, one in workers.items() if before.get(key) is not one]:
            with self._faults.row(("worker", worker.id)) as attempt:
                found[worker.id] = _reached(worker)
            if attempt.fault is not None:
                found.pop(worker.id, None)
        return found

    def route(self, model_name: str) -> ModelRoute | None:
        """The route of that name, if such a model is deployed."""
        return self._routes.get(model_name)

    def route_for(self, model_name: str, principal: Principal) -> ModelRoute:
        """The same. Raises ``GpustackError`` where there is none, or the principal may not use that model."""
        route = self._routes.get(model_name)
        if route is None or not may_use(principal, route.model_name, route.access, route.allowed_user_ids):
            raise unknown(principal, model_name)
        return route

    def pick(self, route: ModelRoute, tried: Collection[int]) -> Endpoint | None:
        """The least busy endpoint of which the instance is not in ``tried``; ``None`` when none is left.

        One that just failed is picked only when there is no other, and one whose worker is silent only when there is
        none of those either.
        """
        quiet = {endpoint.instance_id for endpoint in route.endpoints if endpoint.quiet}
        if quiet:
            quiet.update(tried)
        if self._suspects:
            now = trio.current_time()
            avoided = {key for key, until in self._suspects.items() if until > now}
            avoided.update(quiet or tried)
            found = pick(route.endpoints, self._in_flight, avoided, self._rng)
            if found is not None:
                return found
        if quiet:
            found = pick(route.endpoints, self._in_flight, quiet, self._rng)
            if found is not None:
                return found
        return pick(route.endpoints, self._in_flight, tried, self._rng)

    def under_way(self, endpoint: Endpoint, upstream: UpstreamExchange) -> AbstractContextManager[None]:
        """A context in which the request counts as in flight on the endpoint.

        It is given up, within seconds, when nothing is heard of the endpoint's worker any more. There is no worker
        between us and an engine on this machine.
        """
        return _UnderWay(self._in_flight, endpoint, upstream, self._requests)

    def suspect(self, endpoint: Endpoint) -> bool:
        """Prefer others for a while, because it failed to answer. Returns whether it was not suspected before."""
        now = trio.current_time()
        known = self._suspects.get(endpoint.instance_id, now) > now
        self._suspects[endpoint.instance_id] = now + _SUSPECT_FOR
        return not known

    @property
    def in_flight(self) -> int:
        """Requests in flight in all."""
        return sum(self._in_flight.values())

    def __repr__(self) -> str:
        serving = sum(len(route.endpoints) for route in self._routes.values())
        return f"<Endpoints: {len(self._routes)} models, {serving} replicas, {self.in_flight} requests>"


class _UnderWay:
    """The context of one request; written out, because one made from a generator costs twice as much."""

    __slots__ = ("_endpoint", "_in_flight", "_requests", "_upstream")

    def __init__(
        self,
        in_flight: dict[int, int],
        endpoint: Endpoint,
        upstream: UpstreamExchange,
        requests: WorkerRequests,
    ) -> None:
        self._in_flight = in_flight
        self._endpoint = endpoint
        self._upstream = upstream
        self._requests = requests

    def __enter__(self) -> None:
        key = self._endpoint.instance_id
        self._in_flight[key] = self._in_flight.get(key, 0) + 1
        if not self._endpoint.direct:
            self._requests.add(self._endpoint.worker_id, self._upstream)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        key = self._endpoint.instance_id
        left = self._in_flight[key] - 1
        if left:
            self._in_flight[key] = left
        else:
            del self._in_flight[key]
        if not self._endpoint.direct:
            self._requests.discard(self._endpoint.worker_id, self._upstream)


def _reached(worker: Worker) -> tuple[object, ...]:
    """All that a route takes from a worker."""
    return worker.ip, worker.port, worker.worker_uuid, worker.condition.state

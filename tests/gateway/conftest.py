"""A gateway for every test, and upstreams that say exactly what they are told."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from gpustack.api.access import admit
from gpustack.api.context import AccessControl, ApiContext, WorkerServices
from gpustack.api.problems import problem_of
from gpustack.api.request import ApiRequest
from gpustack.api.route import WITH_ANYBODY
from gpustack.api.throttle import LoginLimiters
from gpustack.domain.access import Principal
from gpustack.errors import GpustackError
from gpustack.gateway.authentication_cache import AuthenticationCache
from gpustack.gateway.dispatcher import Dispatcher
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.gate import Gate
from gpustack.gateway.inference import Gateway, Revocation
from gpustack.gateway.limiter import Limiter
from gpustack.gateway.spooled_body import free_bytes
from gpustack.http1.exchange import Exchange
from gpustack.http1.listen import open_listeners
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import new_reactor
from gpustack.http1.server import HttpServer, ServerLimits
from gpustack.metrics.traffic import Traffic
from gpustack.policy.access import INFERENCE
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.live_status import LiveStatus
from gpustack.server.memory_budget import MemoryBudget
from gpustack.server.token_budget import TokenBudgets
from gpustack.server.usage_ledger import UsageLedger
from gpustack.worker.engine_key import EngineKeys
from tests.api.world import FakeLogSource
from tests.fresh_store import open_fresh
from tests.http1.conftest import run_server
from tests.http1.wire import Client, Script

from .world import KEYS, LOCAL, Clock, World, with_key

MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[MakeWorld]:
    made: list[World] = []

    async def make(
        *,
        patience: float = 60.0,
        limits: ServerLimits | None = None,
        memory: MemoryBudget | None = None,
        spool: Path | None = None,
        free: Callable[[Path], int] = free_bytes,
    ) -> World:
        clock = Clock()
        store = await open_fresh(tmp_path, clock)
        reactor = new_reactor(tick=0.05)
        await nursery.start(reactor.run)
        await nursery.start(store.run)
        pool = ConnectionPool(reactor=reactor)
        await nursery.start(pool.run)
        rng = random.Random(7)
        endpoints = Endpoints(store, rng, LOCAL)
        await nursery.start(endpoints.run)
        gate, ledger = Gate(), UsageLedger(store, clock)
        context = ApiContext(
            store=store,
            keys=KEYS,
            access=AccessControl(cluster_token="the-token", logins=LoginLimiters.of(time.monotonic)),
            workers=WorkerServices(
                heartbeats=HeartbeatTimes(time.monotonic),
                live=LiveStatus(time.monotonic),
                logs=FakeLogSource(),
            ),
            clock=clock,
            monotonic=time.monotonic,
            rng=rng,
        )
        budgets = TokenBudgets(store, clock, time.monotonic)
        await nursery.start(budgets.run)
        traffic = Traffic()
        limiter = Limiter(store, budgets, traffic, clock, time.monotonic)
        keys = EngineKeys()
        gateway = Gateway(
            AuthenticationCache(_authenticate(context), lambda: store.snapshot),
            endpoints,
            Dispatcher(endpoints, pool, KEYS.forward_key, keys.fields, _answer_of, patience),
            gate,
            ledger,
            _answer_of,
            limiter,
            traffic,
            memory=memory or MemoryBudget(),
            spool=spool,
            free=free,
        )
        await nursery.start(Revocation(store, gateway).run)
        (listener,) = open_listeners("127.0.0.1", 0)
        server = HttpServer("gateway", [listener], handler=gateway, reactor=reactor, limits=limits)
        served = await run_server(server, listener, nursery)
        gate.open()
        key = await with_key(store, rng)
        made.append(
            World(
                store,
                endpoints,
                gate,
                pool,
                ledger,
                served,
                key,
                nursery,
                budgets,
                limiter,
                clock,
                traffic,
                rng,
                keys,
            )
        )
        return made[-1]

    yield make
    for world in made:
        await world.served.close_clients()
    nursery.cancel_scope.cancel()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()


@pytest.fixture
def scripted(nursery: trio.Nursery) -> Callable[..., Awaitable[Script]]:
    """Starts an upstream that reads one request a connection and answers with exactly these bytes, then closes."""

    async def start(answer: bytes, *, after: trio.Event | None = None) -> Script:
        async def act(client: Client, number: int) -> None:
            requests.append(await script.request(client))
            if after is not None:
                await after.wait()
            await client.send(answer)

        script = Script(act)
        requests: list[bytes] = []
        script.seen = requests  # type: ignore[attr-defined]  # for tests that look at what came
        await nursery.start(script.run)
        return script

    return start


def _authenticate(context: ApiContext) -> Callable[[Exchange], Awaitable[Principal]]:
    async def authenticate(exchange: Exchange) -> Principal:
        head = exchange.head
        ask = ApiRequest(
            method=head.method,
            path=head.path,
            header=head.get,
            peer=exchange.peer.host,
            body=lambda: exchange.read_body(0),
        )
        admitted = await admit(
            context, ask, allow=WITH_ANYBODY, scopes=INFERENCE, before_password_change=True
        )
        return admitted.principal

    return authenticate


def _answer_of(error: GpustackError, path: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    problem = problem_of(error)
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    return problem.status, [(b"content-type", b"application/json"), *headers], problem.body(path)

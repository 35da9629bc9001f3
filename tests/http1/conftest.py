"""Servers, pools and scripted upstreams, over each kind of reactor."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

from gpustack.http1.listen import open_listeners
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import Reactor, ReactorKind, new_reactor
from gpustack.http1.server import Handler, HttpServer, ServerLimits
from tests.http1.wire import Client, Script, Served

TICK = 0.05
Serve = Callable[..., Awaitable[Served]]


@pytest.fixture(params=["epoll", "portable"])
def kind(request: pytest.FixtureRequest) -> ReactorKind:
    return request.param


@pytest.fixture
async def reactor(kind: ReactorKind, nursery: trio.Nursery) -> Reactor:
    reactor = new_reactor(kind, tick=TICK)
    await nursery.start(reactor.run)
    return reactor


@pytest.fixture
async def serve(reactor: Reactor, nursery: trio.Nursery) -> AsyncIterator[Serve]:
    """Starts a server on a free loopback port."""
    running: list[Served] = []

    async def start(handler: Handler, *, host: str = "127.0.0.1", **options: Any) -> Served:
        (listener,) = open_listeners(host, 0)
        server = HttpServer("test", [listener], handler=handler, reactor=reactor, **options)
        running.append(await run_server(server, listener, nursery))
        return running[-1]

    yield start
    for served in running:
        await served.close_clients()


async def run_server(server: HttpServer, listener: socket.socket, nursery: trio.Nursery) -> Served:
    async def run(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                await inner.start(server.run)
                task_status.started(scope)

    return Served(server, listener, await nursery.start(run))


@pytest.fixture
async def pool(reactor: Reactor, nursery: trio.Nursery) -> ConnectionPool:
    pool = ConnectionPool(reactor=reactor)
    await nursery.start(pool.run)
    return pool


@pytest.fixture
def upstream(nursery: trio.Nursery) -> Callable[..., Awaitable[Script]]:
    """Starts a scripted upstream."""

    async def start(act: Callable[[Client, int], Awaitable[None]]) -> Script:
        script = Script(act)
        await nursery.start(script.run)
        return script

    return start


@pytest.fixture
def brisk() -> ServerLimits:
    """Limits that run out while a test waits."""
    return ServerLimits(
        head_timeout=0.2, idle_timeout=0.2, body_timeout=0.2, write_timeout=0.2, linger_timeout=1.0
    )

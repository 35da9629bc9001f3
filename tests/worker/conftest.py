"""A fake server that runs, and worker daemons beside it whose engines do not outlive the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.worker.daemon import Daemon, kill_leftovers
from tests.worker.server import FakeServer

Start = Callable[..., Awaitable[Daemon]]


@pytest.fixture
async def server(nursery: trio.Nursery) -> FakeServer:
    server = FakeServer()
    await server.start(nursery)
    return server


@pytest.fixture
async def start(server: FakeServer, nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a worker on the one data directory; those before it have ended by then."""
    running: list[Daemon] = []

    async def begin(**options: Any) -> Daemon:
        daemon = Daemon(server, tmp_path / "data", **options)
        running.append(daemon)
        return await daemon.start(nursery)

    yield begin
    for daemon in running:
        with trio.CancelScope(shield=True), trio.move_on_after(20):
            await daemon.stop()
    kill_leftovers(tmp_path)


@pytest.fixture
def start_next(server: FakeServer, start: Start) -> Start:
    """Starts the next daemon, and waits until it has said what became of what the one before it left."""

    async def begin(**options: Any) -> Daemon:
        told = len(server.reports)
        daemon = await start(**options)
        await server.until(lambda: len(server.reports) > told)
        return daemon

    return begin

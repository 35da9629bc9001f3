"""A store in each kind of database, opened and running for the length of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.store import Store, StoreSettings, open_store
from tests.databases import KINDS, SERVERS, Server
from tests.fresh_store import put_database


@attrs.define
class Clock:
    """A wall clock that a test turns."""

    now: datetime = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **units: float) -> None:
        self.now += timedelta(**units)


@pytest.fixture
def clock() -> Clock:
    return Clock()


Opened = Callable[[], AbstractAsyncContextManager[Store]]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/database.db"
        return
    server = request.getfixturevalue("servers")(request.param)
    made = server.create()
    yield made
    server.drop(made)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Server:
    """A running server of each kind that has one."""
    return servers(request.param)


@pytest.fixture
def server_url(server: Server) -> Iterator[str]:
    """A new empty database on ``server``."""
    made = server.create()
    yield made
    server.drop(made)


@asynccontextmanager
async def opening(url: str, clock: Callable[[], datetime]) -> AsyncIterator[Store]:
    """A store that runs until the end of the block."""
    if url.startswith("sqlite:///"):
        await put_database(Path(url.removeprefix("sqlite:///")))
    store = await open_store(StoreSettings(data_dir="unused", url=url), clock)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            yield store
            nursery.cancel_scope.cancel()


@pytest.fixture
def opened(url: str, clock: Clock) -> Opened:
    """``async with opened() as store``: the same database each time, of each kind; it stops with the block."""
    return lambda: opening(url, clock)


@pytest.fixture
def opened_file(tmp_path: Path, clock: Clock) -> Opened:
    """As ``opened``, for what only a file can do: SQLite in ``tmp_path / "database.db"``."""
    return lambda: opening(f"sqlite:///{tmp_path}/database.db", clock)


def execute(store: Store, statement: str) -> None:
    """Do to the database what a store would never do."""
    with store._database.write.begin() as conn:
        conn.exec_driver_sql(statement)

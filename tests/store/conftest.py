"""A store on disk, opened and running for the length of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.store import Store, StoreSettings, open_store


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


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Opened:
    """``async with opened() as store``: the same database each time; it stops at the end of the block."""

    @asynccontextmanager
    async def run() -> AsyncIterator[Store]:
        store = await open_store(StoreSettings(data_dir=str(tmp_path)), clock)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(store.run)
                yield store
                nursery.cancel_scope.cancel()

    return run

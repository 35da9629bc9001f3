"""What a server knows of the minute before it: all that an orderly one left, and nothing after a crash."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.domain.access import ApiKey, AuthMethod, Limits, Principal, Role
from gpustack.domain.route import ModelRoute
from gpustack.errors import LimitReached, Unavailable
from gpustack.gateway import window_file
from gpustack.gateway.limiter import Limiter, should_retry
from gpustack.metrics.traffic import Traffic
from gpustack.policy.usage_limit import SlidingWindow, WindowSlot
from gpustack.server.token_budget import TokenBudgets
from gpustack.store import Store
from tests.fresh_store import open_fresh

from .world import NOW

pytestmark = pytest.mark.attack("limits")

WHO = Principal(role=Role.USER, means=AuthMethod.KEY, user_id=1, api_key_id=1)
MODEL = ModelRoute(model_id=1, model_name="m")


@attrs.define
class Times:
    """A wall clock and a monotonic one, turned together or apart."""

    wall: datetime = NOW
    monotonic: float = 1000.25

    def forward(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.monotonic += seconds


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
async def store(tmp_path: Path, nursery: trio.Nursery, times: Times) -> AsyncIterator[Store]:
    made = await open_fresh(tmp_path, lambda: times.wall)
    await nursery.start(made.run)
    key = ApiKey(name="k", user_id=1, access_key="a", secret_hash="h", limits=Limits(requests_per_minute=3))
    await made.write(lambda tx: tx.insert(key))
    yield made
    nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(
    store: Store,
    times: Times,
    file: Path | None = None,
    servers: Callable[[], tuple[int, int]] = lambda: (1, 0),
) -> AsyncIterator[Limiter]:
    budgets = TokenBudgets(store, lambda: times.wall, lambda: times.monotonic)
    limiter = Limiter(
        store,
        budgets,
        Traffic(),
        lambda: times.wall,
        lambda: times.monotonic,
        servers=servers,
        file=file,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(limiter.run)
        yield limiter
        nursery.cancel_scope.cancel()


async def asked(limiter: Limiter, times: int = 1) -> int:
    """How many of so many requests were let in; each has ended."""
    let_in = 0
    for _ in range(times):
        try:
            permit = await limiter.enter(limiter.of(WHO, MODEL), 0)
        except LimitReached:
            continue
        limiter.leave(permit, 0)
        let_in += 1
    return let_in


async def test_the_next_server_knows_what_the_last_one_let_in(
    store: Store, times: Times, tmp_path: Path
) -> None:
    file = tmp_path / "limits.json"
    file.write_text('{"at": "2026-03-04T05:06:07Z", "windows": {}}')
    async with running(store, times, file) as first:
        assert not file.exists(), "it tells of one stop"
        assert await asked(first, 2) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    times.forward(5)
    times.monotonic = 7.0  # the machine was booted meanwhile
    async with running(store, times, file) as second:
        assert await asked(second, 5) == 1
    times.forward(55)
    async with running(store, times, file) as third:
        assert await asked(third, 5) == 0, "the two are sixty seconds old, to the second"
        times.forward(1)
        assert await asked(third, 5) == 2


async def test_after_a_crash_the_minute_before_counts_as_used(
    store: Store, times: Times, tmp_path: Path
) -> None:
    times.forward(1)
    async with running(store, times, tmp_path / "limits.json") as limiter:
        with pytest.raises(LimitReached) as refused:
            await limiter.enter(limiter.of(WHO, MODEL), 0)
        assert should_retry(refused.value)
        assert refused.value.retry_after == 60.0, "never more: clients give up on it"
        times.forward(61)
        assert await asked(limiter, 5) == 3


async def test_what_was_created_after_the_start_has_used_nothing(
    store: Store, times: Times, tmp_path: Path
) -> None:
    times.wall -= timedelta(seconds=1)
    async with running(store, times, tmp_path / "limits.json") as limiter:
        assert await asked(limiter, 5) == 3


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{",
        b"[]",
        b'{"at": 5, "windows": {}}',
        b'{"at": "2026-03-04T05:06:07", "windows": {}}',
        b'{"at": "2026-03-04T05:06:07Z", "windows": {"key:1": [{"at": "x"}]}}',
    ],
)
def test_a_file_that_cannot_be_read_is_no_file(tmp_path: Path, junk: bytes) -> None:
    file = tmp_path / "limits.json"
    file.write_bytes(junk)
    assert window_file.load_windows(file, 5.0, NOW) is None
    assert window_file.load_windows(file, 5.0, NOW) is None


def test_a_clock_that_goes_back_forgets_nothing(tmp_path: Path) -> None:
    file = tmp_path / "limits.json"
    window_file.save_windows(
        file, {"key:1": SlidingWindow((WindowSlot(90, 1, 5),)), "key:2": SlidingWindow()}, 100.0, NOW
    )
    windows = window_file.load_windows(file, 500.0, NOW - timedelta(hours=1))
    assert windows == {"key:1": SlidingWindow((WindowSlot(490, 1, 5),))}


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_file_that_cannot_be_written_holds_up_no_stop(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    window_file.save_windows(tmp_path / "limits.json", {}, 1.0, NOW)


async def test_servers_divide_what_is_let_in_a_minute(store: Store, times: Times) -> None:
    number = [2, 0]
    async with (
        running(store, times, servers=lambda: (number[0], 0)) as one,
        running(store, times, servers=lambda: (number[0], 1)) as two,
    ):
        assert (await asked(one, 9), await asked(two, 9)) == (2, 1)
        number[0] = 1
        assert await asked(one, 9) == 1, "the other one is gone"


async def test_who_hands_over_lets_in_no_limited_request_any_more(
    store: Store, times: Times, tmp_path: Path
) -> None:
    file = tmp_path / "limits.json"
    async with running(store, times, file) as limiter:
        times.forward(62)
        permit = await limiter.enter(limiter.of(WHO, MODEL), 0)
        limiter.give_up()
        left = file.read_bytes()
        with pytest.raises(Unavailable):
            await limiter.enter(limiter.of(WHO, MODEL), 0)
        limiter.leave(permit, 0)
    assert file.read_bytes() == left, "the next one may have taken it up"
    assert repr(limiter) == "<Limiter: 1 limited, 0 of their requests under way>"


async def test_a_change_of_limits_holds_at_once(store: Store, times: Times) -> None:
    async with running(store, times) as limiter:
        assert await asked(limiter, 9) == 3
        await store.write(lambda tx: tx.change(ApiKey, 1, limits=Limits(requests_per_minute=4)))
        assert await asked(limiter, 9) == 1
        await store.write(lambda tx: tx.change(ApiKey, 1, limits=Limits()))
        assert limiter.of(WHO, MODEL) == ()
        await store.write(lambda tx: tx.change(ApiKey, 1, limits=None))
        assert limiter.of(WHO, MODEL) == ()

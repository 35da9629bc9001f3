"""Asking engines takes bounded time and memory, whatever they answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from gpustack.http1.exchange import Exchange
from gpustack.http1.listen import open_listeners
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.server import Handler, HttpServer
from gpustack.metrics.process_sample import LoopLag
from gpustack.metrics.scrape import ScrapeTarget, scrape
from tests.fakes.running import RunningEngine


def target(port: int) -> ScrapeTarget:
    return ScrapeTarget(
        worker_id=1,
        worker_name="w1",
        model_id=1,
        model_name="m",
        instance_id=port,
        instance_name=f"m-{port}",
        runtime="custom",
        port=port,
    )


@asynccontextmanager
async def engine(handler: Handler) -> AsyncIterator[int]:
    listeners = open_listeners("127.0.0.1", 0)
    server = HttpServer("engine", listeners, handler=handler)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: server.run(task_status=task_status))
        yield listeners[0].getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def pooled() -> AsyncIterator[ConnectionPool]:
    pool = ConnectionPool()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: pool.run(task_status=task_status))
        with trio.fail_after(30):
            yield pool
        nursery.cancel_scope.cancel()


async def test_a_good_engine_a_closed_port_and_one_that_has_no_metrics(
    fake_engine: Callable[..., RunningEngine], free_port: int
) -> None:
    async def nothing_here(exchange: Exchange) -> None:
        await exchange.respond(404)

    async def broken(exchange: Exchange) -> None:
        await exchange.respond(500)

    good = await trio.to_thread.run_sync(fake_engine)
    async with pooled() as pool, engine(nothing_here) as without, engine(broken) as ill:
        ports = [good.port, free_port, without, ill]
        found = await scrape(pool, [target(port) for port in ports])
    assert [one.target.port for one in found] == ports
    assert found[0].page is not None and b"llamacpp:tokens_predicted_total" in found[0].page
    assert [one.page for one in found[1:]] == [None, b"", None]


@pytest.mark.attack("engine")
async def test_a_page_that_never_ends_is_given_up() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.start_response(200)
        while True:
            await exchange.send(b"# " + b"x" * 65536 + b"\n")

    async with pooled() as pool, engine(endless) as port:
        (found,) = await scrape(pool, [target(port)])
    assert found.page is None


@pytest.mark.attack("engine")
async def test_an_engine_that_hangs_holds_nobody_up_for_long() -> None:
    async def silent(exchange: Exchange) -> None:
        await trio.sleep_forever()

    async with pooled() as pool, engine(silent) as port:
        (found,) = await scrape(pool, [target(port)])
    assert found.page is None


async def test_the_loops_lag_is_the_worst_of_late_and_is_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: lag.run(task_status=task_status))
        await trio.testing.wait_all_tasks_blocked()
        autojump_clock.jump(2.5)  # nobody is woken meanwhile: the loop was busy
        await trio.testing.wait_all_tasks_blocked()
        assert lag.worst == 2.0
        await trio.sleep(14)
        assert lag.worst == 2.0
        await trio.sleep(30)
        assert lag.worst == 0.0
        nursery.cancel_scope.cancel()

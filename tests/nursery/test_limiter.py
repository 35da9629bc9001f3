"""Threads by name."""

from __future__ import annotations

import threading

import trio
import trio.testing

from gpustack.nursery import limiters, threads, use_thread_runner
from tests.inline import run_inline


async def test_work_runs_in_a_thread_and_its_use_is_shown_by_name() -> None:
    pool = threads("test-pool", 1)
    go = threading.Event()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run, go.wait, 10)
            nursery.start_soon(pool.run, go.wait, 10)
            await trio.testing.wait_all_tasks_blocked()
            (use,) = [use for use in limiters() if use.name == "test-pool"]
            assert (use.total, use.busy, use.waiting) == (1, 1, 1)
            assert repr(pool) == "<ThreadLimiter test-pool: 1 of 1 busy, 1 waiting>"
            go.set()
    assert await pool.run(threading.get_ident) != threading.get_ident()


async def test_an_abandoned_hop_does_not_wait_for_its_function() -> None:
    go = threading.Event()
    pool = threads("abandoning", 1)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def hop() -> None:
                await pool.run(go.wait, 30, abandon=True)

            nursery.start_soon(hop)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert not go.is_set()
        go.set()
        while pool.use.busy:  # noqa: ASYNC110  nobody tells when an abandoned thread ends
            await trio.sleep(0.01)


async def test_a_simulation_can_do_without_threads() -> None:
    pool = threads("simulated", 1)
    with use_thread_runner(run_inline):
        assert await pool.run(threading.get_ident) == threading.get_ident()
    assert await pool.run(threading.get_ident) != threading.get_ident()


async def test_the_limiter_of_a_thing_that_is_gone_is_not_shown() -> None:
    pool = threads("short-lived", 1)
    assert "short-lived" in [use.name for use in limiters()]
    del pool
    assert "short-lived" not in [use.name for use in limiters()]

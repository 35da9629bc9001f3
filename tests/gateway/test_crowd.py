"""Many at once: nobody is lost, and every count is exact."""

from __future__ import annotations

from collections.abc import Callable

import trio

from tests.fakes.running import RunningEngine
from tests.http1.wire import eventually

from .world import World, chat

CALLS = 500
StartEngine = Callable[..., RunningEngine]


async def test_five_hundred_calls_at_once_are_all_answered_and_counted(
    world: World, fake_engine: StartEngine
) -> None:
    engines = [fake_engine("--reply", "one two three four") for _ in range(3)]
    await world.deploy("m", *(engine.port for engine in engines))
    statuses: list[int] = []

    async def call(number: int) -> None:
        answer = await world.ask("m", stream=number % 2 == 0)
        statuses.append(answer.status)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(CALLS):
                nursery.start_soon(call, number)
    assert statuses == [200] * CALLS
    assert await world.sums() == (CALLS, 0, 3 * CALLS, 4 * CALLS)
    (row,) = await world.usage()
    assert row.request_count == CALLS
    seen = [engine.seen() for engine in engines]
    assert sum(one["finished"] for one in seen) == CALLS
    assert all(one["finished"] > CALLS / 6 for one in seen), "the load was spread"
    assert (world.gate.inside, world.endpoints.in_flight, world.pool.in_flight) == (0, 0, 0)


async def test_counts_stay_exact_when_half_of_the_clients_leave(
    world: World, fake_engine: StartEngine
) -> None:
    engines = [fake_engine("--reply", "w", "--repeat", "8", "--slow-token", "0.01") for _ in range(2)]
    await world.deploy("m", *(engine.port for engine in engines))
    finished = 0

    async def call(number: int) -> None:
        nonlocal finished
        client = await world.connect()
        await client.send(world.request(chat("m", stream=True)))
        if number % 2:
            answer = await client.answer()
            assert answer.body.endswith(b"data: [DONE]\n\n")
            finished += 1
        elif number % 4:
            await client.until(b"data: ")
        await client.close()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(call, number)
    await eventually(lambda: world.gate.inside == 0)
    assert finished == 50
    assert (world.endpoints.in_flight, world.pool.in_flight) == (0, 0)
    requests, failed, prompt, completion = await world.sums()
    assert failed == 0
    # One who hung up before a request was read has asked for nothing.
    assert 75 <= requests <= 100
    assert prompt >= 3 * finished
    assert 8 * finished <= completion <= 8 * 100

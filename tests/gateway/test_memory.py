"""Bodies of requests take their share of the memory and no more, however many come at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from gpustack.domain.access import NOBODY, AuthMethod, Principal, Role
from gpustack.domain.model import ModelAccess
from gpustack.errors import Unavailable
from gpustack.server.memory_budget import MemoryBudget, share_of_memory
from tests.fakes.running import RunningEngine
from tests.http1.wire import eventually

from .conftest import MakeWorld
from .world import chat

StartEngine = Callable[..., RunningEngine]

pytestmark = pytest.mark.attack("flood")


ADA, BOB, CARL, DORA, EVE = (
    Principal(role=Role.USER, means=AuthMethod.KEY, user_id=number, username=name)
    for number, name in enumerate(("ada", "bob", "carl", "dora", "eve"), start=1)
)


def test_what_is_held_is_given_back_whatever_happens() -> None:
    memory = MemoryBudget(100)
    with ExitStack() as others, memory.hold(ADA) as one:
        for principal in (BOB, CARL, DORA):
            others.enter_context(memory.hold(principal)).take(25)
        one.take(15)
        with pytest.raises(Unavailable, match="large requests"), memory.hold(EVE) as other:
            other.take(6)
            other.take(6)
        assert memory.now == 90
        one.take(10)
    assert memory.now == 0
    assert not memory.by_caller
    assert share_of_memory() >= 512 << 20


def test_nobody_takes_all_the_room_alone() -> None:
    memory = MemoryBudget(80)
    with ExitStack() as stack:
        for principal, share in ((NOBODY, 10), (ADA, 20)):
            stack.enter_context(memory.hold(principal)).take(share)
            with pytest.raises(Unavailable, match="large requests"):
                stack.enter_context(memory.hold(principal)).take(1)
        stack.enter_context(memory.hold(BOB)).take(20)
    assert memory.now == 0


async def test_a_body_for_which_there_is_no_room_is_refused_until_another_has_gone(
    make_world: MakeWorld, fake_engine: StartEngine
) -> None:
    memory = MemoryBudget(8 << 20)
    world = await make_world(memory=memory)
    await world.deploy("m", fake_engine().port)
    request = world.request(chat("m", padding="x" * (3 << 19)))
    first, second = await world.connect(), await world.connect()
    await first.send(request[:-1])
    await eventually(lambda: memory.now > 1 << 20)
    answer = await second.ask(request)
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"5")
    await first.close()
    await eventually(lambda: memory.now == 0)
    third = await world.connect()
    assert (await third.ask(request)).status == 200
    assert memory.now == 0


async def test_unfinished_bodies_of_strangers_shut_no_user_out(
    make_world: MakeWorld, fake_engine: StartEngine
) -> None:
    memory = MemoryBudget(8 << 20)
    world = await make_world(memory=memory)
    await world.deploy("m", fake_engine().port, access=ModelAccess.PUBLIC)
    await world.noticed()
    body = chat("m", padding="x" * (700 << 10))
    strangers = [await world.connect() for _ in range(12)]
    for stranger in strangers:
        await stranger.send(world.request(body, key="")[:-1])
    await eventually(lambda: memory.now > 700 << 10)
    assert (await world.send(body, key="")).status == 503
    assert memory.now <= 1 << 20
    assert (await world.send(body)).status == 200

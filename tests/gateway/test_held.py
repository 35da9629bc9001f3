"""Bodies of requests take their share of the memory and no more, however many come at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpustack.errors import Unavailable
from gpustack.gateway.held import Held, share_of_memory
from tests.fakes.running import RunningEngine
from tests.http1.wire import eventually

from .conftest import MakeWorld
from .world import chat

StartEngine = Callable[..., RunningEngine]

pytestmark = pytest.mark.attack("flood")


def test_what_is_held_is_given_back_whatever_happens() -> None:
    held = Held(100)
    with held.hold() as one:
        one.take(60)
        with pytest.raises(Unavailable, match="large requests"), held.hold() as other:
            other.take(30)
            other.take(30)
        assert held.now == 60
        one.take(40)
    assert held.now == 0
    assert share_of_memory() >= 512 << 20


async def test_a_body_for_which_there_is_no_room_is_refused_until_another_has_gone(
    make_world: MakeWorld, fake_engine: StartEngine
) -> None:
    held = Held(2 << 20)
    world = await make_world(held=held)
    await world.deploy("m", fake_engine().port)
    request = world.request(chat("m", padding="x" * (3 << 19)))
    first, second = await world.connect(), await world.connect()
    await first.send(request[:-1])
    await eventually(lambda: held.now > 1 << 20)
    answer = await second.ask(request)
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"5")
    await first.close()
    await eventually(lambda: held.now == 0)
    third = await world.connect()
    assert (await third.ask(request)).status == 200
    assert held.now == 0

"""Events inside one process."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from gpustack.nursery import Bus, Lagged


async def test_a_slow_listener_is_told_once_and_goes_on_with_what_is_new() -> None:
    bus: Bus[object] = Bus()
    with bus.listen(int, room=3) as slow, bus.listen(int, room=9) as fast:
        for number in range(5):
            bus.publish(number)
        bus.publish("not for us")
        assert repr(slow) == "<Listener to int: lagged>"
        assert repr(bus) == "<Bus: 2 listeners, 1 lagged>"
        with pytest.raises(Lagged):
            await slow.next()
        bus.publish(7)
        assert await slow.next() == 7
        assert [await fast.next() for _ in range(6)] == [0, 1, 2, 3, 4, 7]
    assert repr(bus) == "<Bus: 0 listeners, 0 lagged>"


async def test_a_waiting_listener_hears_what_is_published() -> None:
    bus: Bus[str] = Bus()
    with bus.listen() as listener, trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def publish() -> None:
                await trio.testing.wait_all_tasks_blocked()
                bus.publish("now")

            nursery.start_soon(publish)
            assert await listener.next() == "now"


async def test_cancelling_next_does_not_lose_that_events_were_dropped() -> None:
    bus: Bus[int] = Bus()
    with bus.listen(room=1) as listener:
        bus.publish(1)
        bus.publish(2)
        with trio.CancelScope() as scope:
            scope.cancel()
            await listener.next()
        with pytest.raises(Lagged):
            await listener.next()

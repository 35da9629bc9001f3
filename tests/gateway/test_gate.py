"""The gate lets requests in until it is closed, and tells when the last has left."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from gpustack.errors import Unavailable
from gpustack.gateway.gate import Gate


def test_a_gate_is_closed_until_it_is_opened() -> None:
    gate = Gate()
    with pytest.raises(Unavailable) as refused:
        gate.enter()
    assert refused.value.retry_after
    gate.open()
    gate.enter()
    assert repr(gate) == "<Gate: open, 1 inside>"
    gate.close()
    with pytest.raises(Unavailable):
        gate.enter()
    assert (gate.is_open, gate.inside) == (False, 1)


async def test_all_who_wait_hear_that_the_last_has_left() -> None:
    gate = Gate()
    gate.open()
    await gate.emptied()
    gate.enter()
    gate.enter()
    heard: list[int] = []

    async def wait(number: int) -> None:
        await gate.emptied()
        heard.append(number)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, 1)
            nursery.start_soon(wait, 2)
            await trio.testing.wait_all_tasks_blocked()
            gate.leave()
            await trio.testing.wait_all_tasks_blocked()
            assert heard == []
            gate.leave()
    assert sorted(heard) == [1, 2]


async def test_who_comes_in_before_the_waiter_has_looked_is_waited_for_too() -> None:
    gate = Gate()
    gate.open()
    gate.enter()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.emptied)
            await trio.testing.wait_all_tasks_blocked()
            gate.leave()
            gate.enter()
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            gate.leave()

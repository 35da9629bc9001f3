"""Ports are leased to one engine at a time, and none that another program has."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from gpustack.errors import Unavailable
from gpustack.worker.ports import PortLeases


@pytest.fixture
def pair() -> PortLeases:
    """Two neighbouring ports nobody has now."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
        return PortLeases(port, port + 1)


def test_each_lease_has_a_port_of_its_own_until_it_is_given_back(pair: PortLeases) -> None:
    with pair.lease("a") as first, pair.lease("b") as second:
        assert {first, second} == {pair.first, pair.last} == pair.held
        with pytest.raises(Unavailable, match="widen --service-port-range"), pair.lease("c"):
            pass
    assert not pair.held


def test_a_port_just_given_back_rests(pair: PortLeases) -> None:
    with pair.lease("a") as first:
        pass
    with pair.lease("b") as second:
        assert second != first


def test_a_port_of_another_program_is_passed_over(pair: PortLeases) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", pair.first))
        stranger.listen()
        with pair.lease("a") as port:
            assert port == pair.last


def test_an_adopted_engine_keeps_its_port_even_out_of_range(pair: PortLeases) -> None:
    with pair.keep(1, "a"):
        assert pair.held == {1}
        with pytest.raises(Unavailable, match="held by a"), pair.keep(1, "b"):
            pass
        assert pair.held == {1}


def test_a_port_that_is_expected_back_is_leased_to_nobody_else(pair: PortLeases) -> None:
    pair.expect(pair.first, "a")
    with ExitStack() as stack:
        assert stack.enter_context(pair.lease("b")) == pair.last
        with pytest.raises(Unavailable):
            stack.enter_context(pair.lease("c"))
        pair.expect_no_more("a")
        assert stack.enter_context(pair.lease("c")) == pair.first


async def test_whoever_waits_for_a_port_hears_of_one_given_back(pair: PortLeases) -> None:
    heard = trio.Event()

    async def wait() -> None:
        await pair.freed(60.0)
        heard.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            with pair.lease("a"):
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                assert not heard.is_set()
            await heard.wait()

"""A handler may ask whose program is at the other end, and the kernel is asked once for each connection."""

from __future__ import annotations

import trio

from gpustack.http1.address import AddressPair
from gpustack.http1.exchange import Exchange
from tests.http1.conftest import Serve

OWNER = 1001


async def test_the_owner_of_a_connection_is_looked_up_once_and_only_when_asked_for(serve: Serve) -> None:
    looked_up: list[AddressPair] = []
    told: list[int | None] = []

    async def find_owner(ends: AddressPair) -> int | None:
        looked_up.append(ends)
        return OWNER

    async def handler(exchange: Exchange) -> None:
        if exchange.head.path == "/whose":
            told.append(await exchange.owner())
        await exchange.respond(200, [], b"")

    served = await serve(handler, find_owner=find_owner)
    async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        ours = stream.socket.getsockname()
        for path, lookups in ((b"/", 0), (b"/whose", 1), (b"/whose", 1)):
            await stream.send_all(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path)
            await stream.receive_some()
            assert len(looked_up) == lookups
        assert looked_up == [AddressPair.of(ours, stream.socket.getpeername())]
    assert told == [OWNER, OWNER]


async def test_without_a_way_to_know_it_the_owner_is_nobody(serve: Serve) -> None:
    told: list[int | None] = []

    async def handler(exchange: Exchange) -> None:
        told.append(await exchange.owner())
        await exchange.respond(200, [], b"")

    served = await serve(handler)
    async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await stream.receive_some()
    assert told == [None]

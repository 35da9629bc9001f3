"""What a client sees of the server: requests in, responses out, on connections that are kept."""

from __future__ import annotations

import pytest
import trio

from gpustack.http1.exchange import Exchange
from tests.http1.conftest import Serve
from tests.http1.wire import echo, get, post


async def test_a_connection_serves_one_request_after_the_other(serve: Serve) -> None:
    served = await serve(echo)
    client = await served.connect()
    for body in (b"one", b"two", b"three" * 1000):
        answer = await client.ask(post(body))
        assert (answer.status, answer.body) == (200, body)
        assert b"connection" not in answer.headers
        assert b"date" in answer.headers


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    served = await serve(echo)
    client = await served.connect()
    await client.send(post(b"one") + post(b"two") + get() + post(b"three"))
    assert [(await client.answer()).body for _ in range(4)] == [b"one", b"two", b"", b"three"]


@pytest.mark.parametrize("cut", [1, 4, 15, 40, 63, 64, 65, 67])
async def test_a_request_cut_anywhere_is_read_whole(serve: Serve, cut: int) -> None:
    served = await serve(echo)
    client = await served.connect()
    request = post(b"hello, world")
    await client.send(request[:cut])
    await trio.testing.wait_all_tasks_blocked(0.01)
    await client.send(request[cut:])
    assert (await client.answer()).body == b"hello, world"


async def test_a_chunked_request_is_decoded_and_the_next_one_follows(serve: Serve) -> None:
    served = await serve(echo)
    client = await served.connect()
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    await client.send(head + b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\ntrailer: x\r\n\r\n" + get())
    assert (await client.answer()).body == b"hello!"
    assert (await client.answer()).status == 200


async def test_a_response_without_length_is_chunked(serve: Serve) -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.start_response(200, [(b"content-type", b"text/event-stream")])
        for piece in (b"data: 1\n\n", b"", b"data: 2\n\n"):
            await exchange.send(piece)
        await exchange.finish()

    served = await serve(stream)
    client = await served.connect()
    for _ in range(2):
        answer = await client.ask(get())
        assert answer.headers[b"transfer-encoding"] == b"chunked"
        assert answer.body == b"data: 1\n\ndata: 2\n\n"

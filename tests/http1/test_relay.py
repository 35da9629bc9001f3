"""An answer passes through with flat memory, as fast as the client reads and no faster."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import gpustack
from gpustack.http1.exchange import Exchange
from gpustack.http1.fields import Headers, end_to_end
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.server import Handler
from gpustack.http1.upstream import ConnectFailed, UpstreamAddress, UpstreamError, UpstreamTimeout
from tests.http1.conftest import Serve
from tests.http1.wire import PATIENCE, Client, Script, echo, eventually, get, post

Upstream = Callable[[Callable[[Client, int], Awaitable[None]]], Awaitable[Script]]
SIZE = 20 << 20


def gateway(pool: ConnectionPool, port: int) -> Handler:
    """A small reverse proxy."""

    async def forward(exchange: Exchange) -> None:
        head = exchange.head
        body = exchange.body_chunks() if head.content_length is None else await exchange.read_body(SIZE)
        async with pool.request(
            UpstreamAddress("127.0.0.1", port), head.method, head.target, end_to_end(head.headers), body
        ) as response:
            await exchange.relay(response, end_to_end(response.headers))

    return forward


async def say(exchange: Exchange, error: Exception) -> None:
    match error:
        case UpstreamTimeout():
            status = 504
        case ConnectFailed():
            status = 503
        case UpstreamError():
            status = 502
        case _:
            raise error
    await exchange.respond(status, body=str(error).encode())


async def test_an_answer_passes_with_its_end_to_end_headers(
    pool: ConnectionPool, serve: Serve, upstream: Upstream
) -> None:
    async def act(client: Client, nth: int) -> None:
        while True:
            await script.request(client)
            await client.send(
                b"HTTP/1.1 203 Fine\r\ncontent-type: text/plain\r\nconnection: x-hop, keep-alive\r\nx-hop: 1\r\n"
                b"keep-alive: timeout=5\r\nx-end: 2\r\nset-cookie: a\r\nset-cookie: b\r\ncontent-length: 2\r\n\r\nok"
            )

    script = await upstream(act)
    served = await serve(gateway(pool, script.port))
    client = await served.connect()
    for _ in range(2):
        await client.send(post(b"x"))
        raw = await client.until(b"\r\n\r\n")
        assert raw.startswith(b"HTTP/1.1 203 ")
        assert b"content-type: text/plain\r\nx-end: 2\r\nset-cookie: a\r\nset-cookie: b\r\n" in raw
        assert b"x-hop" not in raw
        assert b"keep-alive" not in raw
        assert await client.exactly(2) == b"ok"
    assert script.connections == 1


def test_hop_by_hop_headers_stay_on_their_hop() -> None:
    headers: Headers = [
        (b"connection", b"close, X-Secret"),
        (b"x-secret", b"1"),
        (b"te", b"trailers"),
        (b"upgrade", b"h2c"),
        (b"accept", b"*/*"),
    ]
    assert end_to_end(headers) == [(b"accept", b"*/*")]


def test_hop_by_hop_headers_are_listed_once() -> None:
    package = Path(gpustack.__file__).parent
    found = [path for path in package.rglob("*.py") if "proxy-connection" in path.read_text()]
    assert [str(path.relative_to(package)) for path in found] == ["http1/fields.py"]


async def test_chunks_pass_as_they_come(pool: ConnectionPool, serve: Serve, upstream: Upstream) -> None:
    seen = trio.Event()

    async def act(client: Client, nth: int) -> None:
        await script.request(client)
        await client.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await client.send(b"5\r\nfirst\r\n")
        await seen.wait()
        await client.send(b"6\r\nsecond\r\n0\r\n\r\n")

    script = await upstream(act)
    served = await serve(gateway(pool, script.port))
    client = await served.connect()
    await client.send(post(b"x"))
    await client.until(b"5\r\nfirst\r\n")
    seen.set()
    assert await client.chunked() == b"second"


async def test_an_answer_until_close_is_passed_on_chunked(
    pool: ConnectionPool, serve: Serve, upstream: Upstream
) -> None:
    async def act(client: Client, nth: int) -> None:
        await script.request(client)
        await client.send(b"HTTP/1.1 200 OK\r\n\r\nuntil close")

    script = await upstream(act)
    served = await serve(gateway(pool, script.port))
    client = await served.connect()
    for _ in range(2):
        answer = await client.ask(post(b"x"))
        assert (answer.body, answer.headers[b"transfer-encoding"]) == (b"until close", b"chunked")


@pytest.mark.parametrize(
    ("wire", "status"), [(b"", 502), (b"garbage\r\n\r\n", 502), (b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n", 502)]
)
async def test_an_upstream_that_fails_before_the_first_byte_can_be_answered(
    pool: ConnectionPool, serve: Serve, upstream: Upstream, wire: bytes, status: int
) -> None:
    async def act(client: Client, nth: int) -> None:
        await script.request(client)
        await client.send(wire)

    script = await upstream(act)
    served = await serve(gateway(pool, script.port), on_error=say)
    client = await served.connect()
    for _ in range(2):  # the client's connection outlives the fault
        assert (await client.ask(post(b"x"))).status == status


@pytest.mark.attack("engine")
async def test_an_upstream_that_dies_inside_its_answer_cuts_the_client_off(
    pool: ConnectionPool, serve: Serve, upstream: Upstream
) -> None:
    async def act(client: Client, nth: int) -> None:
        await script.request(client)
        await client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    script = await upstream(act)
    served = await serve(gateway(pool, script.port), on_error=say)
    client = await served.connect()
    await client.send(post(b"x"))
    assert (await client.rest()).endswith(b"half")


async def test_a_client_that_leaves_closes_the_upstream(
    pool: ConnectionPool, serve: Serve, upstream: Upstream
) -> None:
    asked, gone = trio.Event(), trio.Event()

    async def act(client: Client, nth: int) -> None:
        await script.request(client)
        asked.set()
        await client.rest()
        gone.set()

    script = await upstream(act)
    served = await serve(gateway(pool, script.port))
    client = await served.connect()
    await client.send(post(b"x"))
    with trio.fail_after(PATIENCE):
        await asked.wait()
        await client.close()
        await gone.wait()


@pytest.mark.attack("flood")
async def test_a_client_that_does_not_read_stops_the_upstream(
    pool: ConnectionPool, serve: Serve, upstream: Upstream
) -> None:
    sent = 0

    async def flood(client: Client, nth: int) -> None:
        nonlocal sent
        await script.request(client)
        await client.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536

    script = await upstream(flood)
    served = await serve(gateway(pool, script.port))
    client = await served.connect()
    await client.send(post(b"x"))
    with trio.fail_after(PATIENCE):
        await eventually(lambda: any(each.stream.writer.task for each in served.server.connections))
        (connection,) = served.server.connections
        before = -1
        while before != sent:
            before = sent
            await trio.sleep(0.2)
    assert connection.stream.writer.task is not None
    assert 0 < sent < 32 << 20  # four socket buffers


async def test_large_bodies_pass_both_ways_with_flat_memory(pool: ConnectionPool, serve: Serve) -> None:
    piece = b"x" * 32768

    async def backend(exchange: Exchange) -> None:
        size = 0
        async for data in exchange.body_chunks():
            size += len(data)
        await exchange.start_response(200, [(b"x-received", b"%d" % size)])
        for _ in range(SIZE // len(piece)):
            await exchange.send(piece)
        await exchange.finish()

    front = await serve(gateway(pool, (await serve(backend)).port))
    client = await front.connect()
    tracemalloc.start()
    try:
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(SIZE // len(piece)):
            await client.send(b"8000\r\n" + piece + b"\r\n")
        await client.send(b"0\r\n\r\n")
        assert b"x-received: %d\r\n" % SIZE in await client.until(b"\r\n\r\n")
        received = 0
        while size := int(await client.until(b"\r\n"), 16):
            received += len(await client.exactly(size))
            await client.exactly(2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received == SIZE
    assert peak < 4 << 20


async def test_a_body_of_known_length_passes_too(pool: ConnectionPool, serve: Serve) -> None:
    backend = await serve(echo)
    front = await serve(gateway(pool, backend.port))
    client = await front.connect()
    body = b"x" * (1 << 20)
    assert (await client.ask(post(body))).body == body
    assert (await client.ask(get())).status == 200

"""The pool keeps connections, replaces dead ones, and names what went wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing

from gpustack.errors import PayloadTooLarge
from gpustack.http1.exchange import Exchange
from gpustack.http1.fields import Framing
from gpustack.http1.listen import open_listeners
from gpustack.http1.pool import ConnectionPool, PoolLimits
from gpustack.http1.reactor import Reactor
from gpustack.http1.upstream import (
    ConnectFailed,
    UpstreamAddress,
    UpstreamClosed,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from tests.http1.conftest import Serve
from tests.http1.wire import PATIENCE, Client, Script, Served, echo, eventually

Upstream = Callable[[Callable[[Client, int], Awaitable[None]]], Awaitable[Script]]
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def at(place: Served | Script) -> UpstreamAddress:
    return UpstreamAddress("127.0.0.1", place.port)


async def fetch(
    pool: ConnectionPool, address: UpstreamAddress, body: bytes | None = None, **options: float
) -> bytes:
    method = "POST" if body is not None else "GET"
    with trio.fail_after(PATIENCE):
        async with pool.request(address, method, b"/", [], body, **options) as response:
            return await response.read(64 << 20)


async def test_a_connection_is_used_again(pool: ConnectionPool, serve: Serve) -> None:
    ports: set[int] = set()

    async def note(exchange: Exchange) -> None:
        ports.add(exchange.peer.port)
        await echo(exchange)

    served = await serve(note)
    for body in (b"one", b"two" * 100_000, b""):
        assert await fetch(pool, at(served), body) == body
    assert len(ports) == 1
    assert repr(pool) == "<ConnectionPool upstream-pool, 0 requests in flight, 1 idle connections>"


async def test_what_is_sent_is_what_was_asked(pool: ConnectionPool, serve: Serve) -> None:
    heads = []

    async def note(exchange: Exchange) -> None:
        heads.append(exchange.head)
        await exchange.respond(201, [(b"x-y", b"z")], body=await exchange.read_body(100))

    served = await serve(note)
    with trio.fail_after(PATIENCE):
        async with pool.request(at(served), "PUT", b"/a?b=c", [(b"x-a", b"1")], b"body") as response:
            assert (response.status, response.get(b"x-y"), response.head.framing) == (
                201,
                b"z",
                Framing.LENGTH,
            )
            assert [chunk async for chunk in response.chunks()] == [b"body"]
        async with pool.request(at(served), "GET", b"/", [(b"host", b"example.org")]) as response:
            assert await response.read(0) == b""
        async with pool.request(at(served), "POST", b"/") as response:
            assert await response.read(0) == b""
    first, second, third = heads
    assert (first.method, first.target, first.get(b"x-a")) == ("PUT", b"/a?b=c", b"1")
    assert first.get(b"host") == b"127.0.0.1:%d" % served.port
    assert second.get_all(b"host") == [b"example.org"]
    assert (second.content_length, third.content_length) == (None, 0)


@pytest.mark.parametrize("content_length", [None, 3_000_000])
async def test_a_body_may_be_sent_piece_by_piece(
    pool: ConnectionPool, serve: Serve, content_length: int | None
) -> None:
    async def measure(exchange: Exchange) -> None:
        size = 0
        async for piece in exchange.body_chunks():
            size += len(piece)
        await exchange.respond(200, body=b"%d %s" % (size, exchange.head.framing.value.encode()))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100_000
            yield b""

    served = await serve(measure)
    with trio.fail_after(PATIENCE):
        async with pool.request(
            at(served), "POST", b"/", [], pieces(), content_length=content_length
        ) as response:
            answer = await response.read(100)
    assert answer == b"3000000 " + (b"chunked" if content_length is None else b"content_length")


@pytest.mark.parametrize("content_length", [None, 7])
async def test_a_body_in_pieces_is_sent_once_over_a_connection_of_its_own(
    pool: ConnectionPool, serve: Serve, content_length: int | None
) -> None:
    """What an iterator gave is not there a second time, should a kept connection turn out to be dead."""
    seen: list[tuple[int, bytes]] = []

    async def note(exchange: Exchange) -> None:
        seen.append((exchange.peer.port, await exchange.read_body(100)))
        await exchange.respond(200, body=b"ok")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"more"

    served = await serve(note)
    assert await fetch(pool, at(served), b"kept") == b"ok"
    assert repr(pool).endswith("1 idle connections>")
    with trio.fail_after(PATIENCE):
        async with pool.request(
            at(served), "POST", b"/", [], pieces(), content_length=content_length
        ) as response:
            assert await response.read(100) == b"ok"
    (first, _), (second, body) = seen
    assert body == b"onemore" and second != first


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize("content_length", [2, 4])
async def test_a_body_that_is_not_as_long_as_it_says_is_not_passed_off(
    pool: ConnectionPool, serve: Serve, content_length: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"

    served = await serve(echo)
    with trio.fail_after(PATIENCE), pytest.raises(ValueError):
        async with pool.request(at(served), "POST", b"/", [], pieces(), content_length=content_length):
            pass


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize(
    "headers", [[(b"Content-Length", b"3")], [(b"transfer-encoding", b"chunked")], [(b"a", b"b\r\nc: d")]]
)
async def test_headers_that_would_break_the_request_are_refused(
    pool: ConnectionPool, headers: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(ValueError):
        pool.request(UpstreamAddress("127.0.0.1", 1), "GET", b"/", headers)


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize("target", [b"", b"/a b", b"/a\r\nb"])
async def test_targets_that_would_break_the_request_are_refused(pool: ConnectionPool, target: bytes) -> None:
    with pytest.raises(ValueError):
        pool.request(UpstreamAddress("127.0.0.1", 1), "GET", target)


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize(
    "host",
    [
        "",
        "..",
        "a" * 70,
        "127.0.0.1\0",
        "127.0.0.1\0\r\n\r\nGET /v1/users HTTP/1.1",
        "a b",
        "\ud800",
        "1\r\nx: y",
    ],
    ids=ascii,
)
async def test_what_is_no_host_is_no_connection(pool: ConnectionPool, host: str) -> None:
    with pytest.raises(ConnectFailed):
        await fetch(pool, UpstreamAddress(host, 9))


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize("port", [-1, 65536, 10**12, 2**63])
async def test_what_is_no_port_is_no_connection(pool: ConnectionPool, port: int) -> None:
    with pytest.raises(ConnectFailed):
        await fetch(pool, UpstreamAddress("127.0.0.1", port))


async def test_a_kept_connection_that_died_is_replaced(pool: ConnectionPool, upstream: Upstream) -> None:
    async def answer_once(client: Client, nth: int) -> None:
        await script.request(client)
        await client.send(OK)
        if nth == 1:  # reads the second request, then dies: no event can warn of this
            await script.request(client)
            return
        await trio.sleep_forever()

    script = await upstream(answer_once)
    assert await fetch(pool, at(script), b"first") == b"ok"
    assert await fetch(pool, at(script), b"second") == b"ok"
    assert (script.connections, script.requests) == (2, 3)


@pytest.mark.attack("engine")
async def test_a_connection_that_speaks_unasked_is_not_used_again(
    pool: ConnectionPool, upstream: Upstream
) -> None:
    """What it said would be taken for the answer to the next request."""
    speak = trio.Event()

    async def act(client: Client, nth: int) -> None:
        await script.request(client)
        await client.send(OK)
        if nth == 1:
            await speak.wait()
            await client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong")
            said.set()
        await trio.sleep_forever()

    said = trio.Event()
    script = await upstream(act)
    assert await fetch(pool, at(script), b"first") == b"ok"
    speak.set()
    await said.wait()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert await fetch(pool, at(script), b"second") == b"ok"
    assert script.connections == 2


async def test_a_fresh_connection_that_dies_is_an_error(pool: ConnectionPool, upstream: Upstream) -> None:
    async def die(client: Client, nth: int) -> None:
        await script.request(client)

    script = await upstream(die)
    with pytest.raises(UpstreamClosed) as caught:
        await fetch(pool, at(script), b"body")
    assert not caught.value.response_started
    assert "without an answer" in str(caught.value)
    assert script.connections == 1


@pytest.mark.attack("engine")
async def test_a_kept_connection_that_answers_in_part_is_not_tried_again(
    pool: ConnectionPool, upstream: Upstream
) -> None:
    async def act(client: Client, nth: int) -> None:
        await script.request(client)
        await client.send(OK)
        await script.request(client)
        await client.send(b"HTTP/1.1 200")

    script = await upstream(act)
    assert await fetch(pool, at(script), b"first") == b"ok"
    with pytest.raises(UpstreamClosed) as caught:
        await fetch(pool, at(script), b"second")
    assert caught.value.response_started
    assert script.connections == 1


async def test_an_idle_connection_that_the_upstream_closes_is_dropped(
    pool: ConnectionPool, upstream: Upstream
) -> None:
    async def once(client: Client, nth: int) -> None:
        await script.request(client)
        await client.send(OK)

    script = await upstream(once)
    assert await fetch(pool, at(script)) == b"ok"
    await eventually(lambda: "0 idle" in repr(pool))


@pytest.mark.attack("engine")
@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", UpstreamProtocolError),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", UpstreamProtocolError),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            UpstreamProtocolError,
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", UpstreamProtocolError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", UpstreamClosed),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", UpstreamClosed),
        (b"HTTP/1.1 200", UpstreamClosed),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 33 + OK, UpstreamProtocolError),
        (b"HTTP/1.1 200 OK\r\n" + b"x:\r\n" * 300 + b"\r\n", UpstreamProtocolError),
        (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", UpstreamProtocolError),
    ],
)
async def test_what_is_wrong_with_an_answer_is_named(
    pool: ConnectionPool, upstream: Upstream, wire: bytes, error: type[UpstreamError]
) -> None:
    async def act(client: Client, nth: int) -> None:
        await script.request(client)
        await client.send(wire)

    script = await upstream(act)
    with pytest.raises(error) as caught:
        await fetch(pool, at(script))
    assert f"127.0.0.1:{script.port}" in str(caught.value)
    assert "0 requests in flight, 0 idle" in repr(pool)


@pytest.mark.parametrize(
    ("wire", "body", "kept"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\n" + OK, b"ok", True),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil close", b"until close", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok", b"ok", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", b"ok", False),
        (OK + b"HTTP/1.1 200 OK\r\n\r\nunasked", b"ok", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (CHUNKED + b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nx: y\r\n\r\n", b"hello!", True),
    ],
)  # fmt: skip
async def test_answers_are_read_in_one_piece_or_byte_by_byte(
    pool: ConnectionPool, upstream: Upstream, wire: bytes, body: bytes, kept: bool
) -> None:
    async def act(client: Client, nth: int) -> None:
        await script.request(client)
        if nth == 1:
            await client.send(wire)
        else:
            for i in range(len(wire)):
                await client.send(wire[i : i + 1])
                await trio.lowlevel.checkpoint()
        if kept:
            await trio.sleep_forever()

    script = await upstream(act)
    assert await fetch(pool, at(script)) == body
    assert f"{int(kept)} idle" in repr(pool)
    if not kept or script.connections == 1:
        fresh = ConnectionPool(reactor=pool.reactor)
        assert await fetch(fresh, at(script)) == body


async def test_an_early_answer_ends_the_upload(pool: ConnectionPool, upstream: Upstream, kind: str) -> None:
    async def refuse(client: Client, nth: int) -> None:
        await client.until(b"\r\n\r\n")
        await client.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        if kind == "portable":  # notices an early answer only when it can write
            await client.rest()
        await trio.sleep_forever()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 65536

    script = await upstream(refuse)
    for body in (b"x" * (20 << 20), endless()):
        if kind == "portable":
            continue
        with trio.fail_after(PATIENCE):
            async with pool.request(at(script), "POST", b"/", [], body) as response:
                assert (response.status, await response.read(10)) == (413, b"no")
    assert "0 idle" in repr(pool)


@pytest.mark.attack("engine")
async def test_interim_answers_without_end_do_end_the_upload(
    pool: ConnectionPool, upstream: Upstream, kind: str
) -> None:
    """Even where they come while the request is still being sent, and each in time."""
    # Sees no answer as long as it cannot write, and gives up on that after idle_timeout.
    if kind == "portable":
        return

    async def act(client: Client, nth: int) -> None:
        await client.until(b"\r\n\r\n")
        while True:
            await client.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 50)

    script = await upstream(act)
    with trio.fail_after(PATIENCE), pytest.raises(UpstreamError):
        await fetch(pool, at(script), b"x" * (40 << 20))


async def test_an_interim_answer_does_not_end_the_upload(pool: ConnectionPool, upstream: Upstream) -> None:
    async def act(client: Client, nth: int) -> None:
        await client.until(b"\r\n\r\n")
        await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await client.exactly(8 << 20)
        await client.send(OK)

    script = await upstream(act)
    assert await fetch(pool, at(script), b"x" * (8 << 20)) == b"ok"


# --- time ---


async def test_time_runs_out_by_stage(pool: ConnectionPool, upstream: Upstream) -> None:
    async def act(client: Client, nth: int) -> None:
        await client.until(b"\r\n\r\n")
        if nth == 2:
            await client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal")
        await trio.sleep_forever()

    script = await upstream(act)
    with pytest.raises(UpstreamTimeout) as first:
        await fetch(pool, at(script), first_byte_timeout=0.1)
    with pytest.raises(UpstreamTimeout) as second:
        await fetch(pool, at(script), idle_timeout=0.1)
    with pytest.raises(UpstreamTimeout) as third:
        await fetch(pool, at(script), b"x" * (64 << 20), idle_timeout=0.1)
    assert [first.value.stage, second.value.stage, third.value.stage] == ["first_byte", "body", "send"]
    assert [first.value.response_started, second.value.response_started] == [False, True]


async def test_a_refused_connection_says_so(pool: ConnectionPool) -> None:
    (listener,) = open_listeners("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(ConnectFailed) as caught:
        await fetch(pool, UpstreamAddress("127.0.0.1", port))
    assert str(caught.value) == f"No connection to 127.0.0.1:{port}: Connection refused."


async def test_a_connection_that_nobody_accepts_times_out(pool: ConnectionPool) -> None:
    (listener,) = open_listeners("127.0.0.1", 0, backlog=0)
    address = UpstreamAddress(*listener.getsockname())
    waiting = []
    try:
        with pytest.raises(UpstreamTimeout) as caught:
            for _ in range(20):  # fill the queue; then nobody answers
                with trio.move_on_after(0.2):
                    waiting.append(await trio.open_tcp_stream(address.host, address.port))
                    continue
                await fetch(pool, address, connect_timeout=0.1)
        assert caught.value.stage == "connect"
    finally:
        listener.close()
        for stream in waiting:
            await trio.aclose_forcefully(stream)


async def test_cancelling_closes_the_connection_at_once(pool: ConnectionPool, upstream: Upstream) -> None:
    for when in ("before", "inside"):
        asked, gone = trio.Event(), trio.Event()

        async def act(
            client: Client, nth: int, when: str = when, asked: trio.Event = asked, gone: trio.Event = gone
        ) -> None:
            await client.until(b"\r\n\r\n")
            if when == "inside":
                await client.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
            asked.set()
            await client.rest()
            gone.set()

        script = await upstream(act)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch, pool, at(script))
                await asked.wait()
                nursery.cancel_scope.cancel()
            await gone.wait()
        assert "0 requests in flight, 0 idle" in repr(pool)


@pytest.mark.attack("engine")
async def test_an_answer_that_is_too_large_is_not_read_on(pool: ConnectionPool, serve: Serve) -> None:
    async def big(exchange: Exchange) -> None:
        await exchange.respond(200, body=b"x" * 1001)

    served = await serve(big)
    with trio.fail_after(PATIENCE), pytest.raises(PayloadTooLarge):
        async with pool.request(at(served), "GET", b"/") as response:
            await response.read(1000)


async def test_idle_connections_are_bounded_in_number_and_age(
    reactor: Reactor, nursery: trio.Nursery, serve: Serve
) -> None:
    everyone_in = trio.Event()

    async def wait(exchange: Exchange) -> None:
        if served.server.in_flight == 3:
            everyone_in.set()
        await everyone_in.wait()
        await exchange.respond(200)

    served = await serve(wait)
    pool = ConnectionPool(PoolLimits(idle_per_address=2, idle_seconds=0.0), reactor=reactor)
    await nursery.start(pool.run)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as inner:
            for _ in range(3):
                inner.start_soon(fetch, pool, at(served))
        while "0 idle" not in repr(pool):
            assert "3 idle" not in repr(pool)
            await trio.sleep(0.01)
        await eventually(lambda: not served.server.connections)


async def test_a_pool_that_does_not_run_says_so(kind: str) -> None:
    with pytest.raises(RuntimeError):
        ConnectionPool().request(UpstreamAddress("127.0.0.1", 1), "GET", b"/")


async def test_a_pool_runs_its_own_reactor_and_stops_whole(serve: Serve, nursery: trio.Nursery) -> None:
    served = await serve(echo)
    pool = ConnectionPool()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as inner:
            await inner.start(pool.run)
            assert await fetch(pool, at(served), b"x") == b"x"
            inner.cancel_scope.cancel()
        await eventually(lambda: not served.server.connections)


def test_addresses_are_written_as_urls_write_them() -> None:
    assert str(UpstreamAddress("::1", 80)) == "[::1]:80"
    assert str(UpstreamAddress("localhost", 80)) == "localhost:80"
    assert attrs.evolve(UpstreamAddress("a", 1), port=2) == UpstreamAddress("a", 2)

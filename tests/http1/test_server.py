"""What a client sees of the server: requests in, responses out, on connections that are kept."""

from __future__ import annotations

import json

import pytest
import trio

from gpustack.http1.exchange import Exchange
from tests.http1.conftest import Serve
from tests.http1.wire import PATIENCE, RESET, echo, get, post


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


async def test_a_response_with_length_is_sent_as_it_is(serve: Serve) -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.start_response(200, content_length=6, flush=False)
        await exchange.send(b"abc")
        await exchange.send(b"def")
        await exchange.finish()

    served = await serve(stream)
    client = await served.connect()
    for _ in range(2):
        answer = await client.ask(get())
        assert (answer.headers[b"content-length"], answer.body) == (b"6", b"abcdef")


async def test_head_gets_the_headers_and_no_body(serve: Serve) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.head.path == "/stream":
            await exchange.start_response(200)
            await exchange.send(b"dropped")
            await exchange.finish()
        else:
            await exchange.respond(200, body=b"twelve bytes")

    served = await serve(answer)
    client = await served.connect()
    await client.send(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\nHEAD /stream HTTP/1.1\r\nhost: x\r\n\r\n" + get())
    assert (await client.answer(bodyless=True)).headers[b"content-length"] == b"12"
    assert (await client.answer(bodyless=True)).status == 200
    assert (await client.answer()).body == b"twelve bytes"


async def test_no_content_carries_neither_length_nor_chunks(serve: Serve) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.respond(204)

    served = await serve(answer)
    client = await served.connect()
    for _ in range(2):
        answered = await client.ask(get())
        assert answered.status == 204
        assert not answered.headers.keys() & {b"content-length", b"transfer-encoding"}


async def test_http_1_0_gets_no_chunks_and_is_closed_unless_it_asks(serve: Serve) -> None:
    async def stream(exchange: Exchange) -> None:
        if exchange.head.path == "/length":
            await exchange.respond(200, body=b"whole")
            return
        await exchange.start_response(200)
        await exchange.send(b"until ")
        await exchange.send(b"close")
        await exchange.finish()

    served = await serve(stream)
    client = await served.connect()
    answer = await client.ask(get("/length", "connection: keep-alive", version="1.0"))
    assert answer.headers[b"connection"] == b"keep-alive"
    answer = await client.ask(get("/", "connection: keep-alive", version="1.0"))
    assert (answer.body, answer.headers[b"connection"]) == (b"until close", b"close")
    client = await served.connect()
    assert (await client.ask(get("/length", version="1.0"))).body == b"whole"
    assert await client.rest() == b""


async def test_a_cut_response_that_ends_with_the_connection_is_reset(serve: Serve) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.start_response(200)
        await exchange.send(b"half")
        raise ValueError("halfway")

    served = await serve(cut)
    client = await served.connect()
    await client.send(get(version="1.0"))
    assert (await client.rest()).endswith(RESET)


async def test_the_client_is_told_to_continue_when_its_body_is_wanted(serve: Serve) -> None:
    served = await serve(echo)
    client = await served.connect()
    head, _, body = post(b"the body", "/", "expect: 100-continue").partition(b"\r\n\r\n")
    for _ in range(2):
        await client.send(head + b"\r\n\r\n")
        assert (await client.answer()).status == 100
        await client.send(body)
        assert (await client.answer()).body == b"the body"


async def test_an_unwanted_body_is_not_asked_for(serve: Serve) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.respond(401)

    served = await serve(refuse)
    client = await served.connect()
    head = post(b"the body", "/", "expect: 100-continue").partition(b"\r\n\r\n")[0]
    answer = await client.ask(head + b"\r\n\r\n")
    assert (answer.status, answer.headers[b"connection"]) == (401, b"close")
    assert await client.rest() == b""


async def test_a_refused_request_whose_body_has_come_keeps_its_connection(serve: Serve) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.respond(429, [(b"retry-after", b"1")])

    served = await serve(refuse)
    client = await served.connect()
    for _ in range(3):
        answer = await client.ask(post(b"never read"))
        assert answer.status == 429
        assert b"connection" not in answer.headers


async def test_the_client_gets_the_413_though_it_still_sends(serve: Serve) -> None:
    """Closing with unread bytes would reset the connection and lose the answer."""

    async def small(exchange: Exchange) -> None:
        await exchange.respond(200, body=await exchange.read_body(1000))

    served = await serve(small)
    for head in (b"content-length: 8000000", b"transfer-encoding: chunked"):
        client = await served.connect()
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n" if b"chunked" in head else b"x" * 65536
        for _ in range(100):
            await client.send(chunk)
        answer = await client.answer()
        assert answer.status == 413
        assert b"1000 bytes" in answer.body
        assert await client.rest() == b""


async def test_a_body_of_twenty_mebibytes_is_read(serve: Serve) -> None:
    async def measure(exchange: Exchange) -> None:
        await exchange.respond(200, body=b"%d" % len(await exchange.read_body(64 << 20)))

    served = await serve(measure)
    client = await served.connect()
    size = 20 << 20
    await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
    await client.send(b"x" * size)
    assert (await client.answer()).body == b"%d" % size


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\nhost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 70_000 + b"\r\n\r\n", 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
async def test_a_malformed_request_is_answered_once_and_the_connection_closed(
    serve: Serve, request_bytes: bytes, status: int
) -> None:
    served = await serve(echo)
    client = await served.connect()
    await client.send(request_bytes + get("/smuggled"))
    answer = await client.answer()
    assert answer.status == status
    assert answer.headers[b"connection"] == b"close"
    assert await client.rest() == b""


async def test_a_failing_handler_is_a_500_and_the_server_lives(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(exchange: Exchange) -> None:
        if exchange.head.path == "/group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise ValueError("secret detail")
        if exchange.head.path != "/nothing":
            raise ValueError("secret detail")

    served = await serve(fail)
    client = await served.connect()
    for path in ("/", "/group"):
        answer = await client.ask(get(path))
        assert answer.status == 500
        assert b"secret" not in answer.body
    assert (await client.ask(get("/nothing"))).status == 500
    assert caplog.text.count("secret detail") >= 2


async def test_a_handler_that_fails_inside_its_response_cuts_the_connection(serve: Serve) -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.start_response(200)
        await exchange.send(b"half")
        raise ValueError("halfway")

    served = await serve(fail)
    client = await served.connect()
    await client.send(get())
    assert (await client.rest()).endswith(b"4\r\nhalf\r\n")


async def test_errors_are_answered_in_the_caller_s_own_words(serve: Serve) -> None:
    async def fail(exchange: Exchange) -> None:
        raise PermissionError("not you")

    async def say(exchange: Exchange, error: Exception) -> None:
        await exchange.respond(403, body=str(error).encode())

    served = await serve(fail, on_error=say)
    client = await served.connect()
    answer = await client.ask(get())
    assert (answer.status, answer.body) == (403, b"not you")
    assert json.loads((await client.ask(b"nonsense\r\n\r\n")).body)["code"] == 400


@pytest.mark.attack("forged-line")
@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb"),
        (b"x\r\ny", b"a"),
        (b"x", b"a\0"),
        (b"Content-Length", b"3"),
        (b"Transfer-Encoding", b"chunked"),
        (b"connection", b"close"),
    ],
)
async def test_a_response_header_cannot_break_the_head(serve: Serve, field: tuple[bytes, bytes]) -> None:
    refused = trio.Event()

    async def answer(exchange: Exchange) -> None:
        try:
            await exchange.respond(200, [field])
        except ValueError:
            refused.set()
            await exchange.respond(200, body=b"safe")

    served = await serve(answer)
    client = await served.connect()
    assert (await client.ask(get())).body == b"safe"
    assert refused.is_set()


async def test_a_body_must_be_as_long_as_it_says(serve: Serve) -> None:
    errors: list[str] = []

    async def answer(exchange: Exchange) -> None:
        await exchange.start_response(200, content_length=4)
        try:
            if exchange.head.path == "/long":
                await exchange.send(b"12345")
            else:
                await exchange.finish()
        except ValueError as error:
            errors.append(str(error))
            raise

    served = await serve(answer)
    for path in ("/long", "/short"):
        client = await served.connect()
        await client.send(get(path))
        assert (await client.rest()).endswith(b"\r\n\r\n")
    assert [error.partition(" than")[0] for error in errors] == ["the body is longer", "the body is shorter"]


async def test_the_handler_learns_who_asks(serve: Serve) -> None:
    seen: list[tuple[str, int, bool]] = []

    async def answer(exchange: Exchange) -> None:
        seen.append((exchange.peer.host, exchange.peer.port, exchange.tls))
        assert exchange.local.port == served.port
        assert "GET /who of 127.0.0.1, not answered" in repr(exchange)
        await exchange.respond(200)
        assert "answered 200" in repr(exchange)

    served = await serve(answer)
    client = await served.connect()
    assert (await client.ask(get("/who"))).status == 200
    assert seen == [("127.0.0.1", client.stream.socket.getsockname()[1], False)]


async def test_claimed_and_other_requests_share_a_connection(serve: Serve) -> None:
    async def core(exchange: Exchange) -> None:
        await exchange.respond(200, body=b"core")

    async def other(exchange: Exchange) -> None:
        await exchange.respond(200, body=b"other")

    served = await serve(core, claims=lambda head, peer: head.path.startswith("/v1/"), hand_off=other)
    client = await served.connect()
    paths = ("/v1/chat", "/", "/v1/chat", "/v2")
    assert [(await client.ask(get(path))).body for path in paths] == [b"core", b"other", b"core", b"other"]


async def test_the_server_says_what_it_is_doing(serve: Serve) -> None:
    inside, leave = trio.Event(), trio.Event()

    async def wait(exchange: Exchange) -> None:
        inside.set()
        await leave.wait()
        await exchange.respond(200)

    served = await serve(wait)
    assert repr(served.server) == "<HttpServer test serving, 0 connections>"
    client = await served.connect()
    await client.send(get())
    with trio.fail_after(PATIENCE):
        await inside.wait()
    assert repr(served.server) == "<HttpServer test serving, 1 connections: 1 serving>"
    assert served.server.in_flight == 1
    leave.set()
    assert (await client.answer()).status == 200
    assert served.server.in_flight == 0


async def test_addresses_of_ipv6_are_served(serve: Serve) -> None:
    async def who(exchange: Exchange) -> None:
        await exchange.respond(200, body=exchange.peer.host.encode())

    served = await serve(who, host="::1")
    client = await served.connect()
    assert (await client.ask(get())).body == b"::1"

"""A client and an upstream that speak in raw bytes, for looking at the wire itself."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import attrs
import trio

from gpustack.http1.exchange import Exchange
from gpustack.http1.server import HttpServer

RESET = b"<RESET>"
PATIENCE = 10
"""How long a test waits for what must come: a bound, never a measure."""


@attrs.define
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Client:
    """One connection to a server under test."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def more(self) -> bytes:
        try:
            with trio.fail_after(PATIENCE):
                data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = RESET if RESET not in self.buffer else b""
        self.buffer += bytes(data)
        return bytes(data)

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and with ``mark``."""
        while mark not in self.buffer:
            if not await self.more():
                raise AssertionError(f"closed before {mark!r}: {self.buffer[-200:]!r}")
        before, _, self.buffer = self.buffer.partition(mark)
        return before + mark

    async def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not await self.more():
                raise AssertionError(f"closed after {len(self.buffer)} of {count} bytes")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    async def rest(self) -> bytes:
        """Everything until the connection ends; ends with RESET if it was reset."""
        while await self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    async def answer(self, *, bodyless: bool = False) -> Answer:
        first, *lines = (await self.until(b"\r\n\r\n")).split(b"\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines if line)
        }
        status = int(first.split()[1])
        if bodyless or status == 100:
            body = b""
        elif b"content-length" in headers:
            body = await self.exactly(int(headers[b"content-length"]))
        elif headers.get(b"transfer-encoding") == b"chunked":
            body = await self.chunked()
        elif status in (204, 304):
            body = b""
        else:
            body = await self.rest()
        return Answer(status, headers, body)

    async def request_body(self, head: bytes) -> bytes:
        """The body of a request whose head that is, where the other end is a client."""
        low = head.lower()
        if b"transfer-encoding: chunked" in low:
            return await self.chunked()
        return await self.exactly(int(low.partition(b"content-length:")[2].split(b"\r\n")[0] or 0))

    async def chunked(self) -> bytes:
        body = b""
        while size := int(await self.until(b"\r\n"), 16):
            body += await self.exactly(size)
            assert await self.exactly(2) == b"\r\n"
        assert await self.exactly(2) == b"\r\n"
        return body

    async def ask(self, request: bytes) -> Answer:
        await self.send(request)
        return await self.answer()

    async def close(self) -> None:
        await trio.aclose_forcefully(self.stream)


async def eventually(true: Callable[[], bool]) -> None:
    """Waits for something that has no event of its own."""
    with trio.fail_after(PATIENCE):
        while not true():  # noqa: ASYNC110
            await trio.sleep(0.005)


class Served:
    """A running server and how to reach it."""

    def __init__(self, server: HttpServer, listener: socket.socket, scope: trio.CancelScope) -> None:
        self.server = server
        self.clients: list[Client] = []
        self.scope = scope
        self.host, self.port = listener.getsockname()[:2]

    async def connect(self) -> Client:
        client = Client(await trio.open_tcp_stream(self.host, self.port))
        self.clients.append(client)
        return client

    async def close_clients(self) -> None:
        for client in self.clients:
            await client.close()


def get(path: str = "/", *fields: str, version: str = "1.1") -> bytes:
    lines = [f"GET {path} HTTP/{version}", "host: test", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def post(body: bytes, path: str = "/", *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: test", f"content-length: {len(body)}", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def echo(exchange: Exchange) -> None:
    """Answers with the request's body."""
    await exchange.respond(200, body=await exchange.read_body(64 << 20))


class Script:
    """An upstream that does what it is told on each connection, and counts."""

    def __init__(self, act: Callable[[Client, int], Awaitable[None]]) -> None:
        self.act = act
        self.connections = 0
        self.requests = 0
        self.closed = trio.Event()
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1")
            listeners = await nursery.start(serve)
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        client = Client(stream)
        try:
            with suppress(AssertionError, trio.BrokenResourceError, trio.ClosedResourceError):
                await self.act(client, self.connections)
        finally:
            await trio.aclose_forcefully(stream)

    async def request(self, client: Client) -> bytes:
        """Reads one request and counts it; returns its head and body."""
        head = await client.until(b"\r\n\r\n")
        self.requests += 1
        return head + await client.request_body(head)

"""A request whose answer is read while it is made, straight from the application."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import orjson
import trio

from .world import AWAY, World


@attrs.define
class Stream:
    """What the application sends, as a client with little room reads it."""

    receive: trio.MemoryReceiveChannel[dict[str, Any]]
    left: trio.Event = attrs.field(factory=trio.Event)
    over: trio.Event = attrs.field(factory=trio.Event)
    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    _lines: deque[bytes] = attrs.field(factory=deque)

    async def line(self) -> bytes:
        """The next line, without its end. Raises ``trio.EndOfChannel`` after the last."""
        while not self._lines:
            event = await self.receive.receive()
            if event["type"] == "http.response.body" and event["body"]:
                assert event["body"].endswith(b"\n"), "lines are sent whole"
                self._lines.extend(event["body"].removesuffix(b"\n").split(b"\n"))
        return self._lines.popleft()

    async def event(self) -> dict[str, Any]:
        """The next event; blank lines are passed over."""
        while True:
            if line := await self.line():
                return dict(orjson.loads(line))

    async def events(self, count: int) -> list[dict[str, Any]]:
        return [await self.event() for _ in range(count)]

    async def left_by_server(self) -> None:
        """Wait until the application has given up, without reading on."""
        await self.over.wait()

    async def ended(self) -> None:
        """Wait for the end of the body."""
        while True:
            try:
                await self.line()
            except trio.EndOfChannel:
                return


@asynccontextmanager
async def streaming(
    world: World,
    path: str,
    bearer: str | None = None,
    room: int = 0,
    head: tuple[bytes, bytes] | None = None,
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> AsyncIterator[Stream]:
    """Ask as the administrator unless a bearer is given, or a ``head`` that says who asks, with ``more`` headers;
    ``room`` pieces are taken before the client is full."""
    send, receive = trio.open_memory_channel[dict[str, Any]](room)
    stream = Stream(receive)
    plain, _, query = path.partition("?")
    who = head or (b"authorization", f"Bearer {bearer or world.keys[world.admin.id]}".encode())
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": plain,
        "raw_path": plain.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"gpustack.example"), who, *more],
        "client": (AWAY, 40000),
        "server": ("10.0.0.1", 80),
        "extensions": {},
    }
    asked = [{"type": "http.request", "body": b"", "more_body": False}]

    async def from_client() -> dict[str, Any]:
        if asked:
            return asked.pop()
        await stream.left.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        async with send:
            await world.app(scope, from_client, send.send)  # type: ignore[arg-type]
            stream.over.set()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            start = await receive.receive()
            stream.status = start["status"]
            stream.headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
            yield stream
            stream.left.set()
            async with receive:
                pass

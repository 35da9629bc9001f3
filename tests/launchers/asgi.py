"""Asks an ASGI application without a socket, and can leave in the middle of an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import trio


@attrs.define
class AsgiAnswer:
    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fault(self) -> str:
        return str(self.json["error"]["message"])

    @property
    def events(self) -> list[Any]:
        lines = [line.removeprefix("data: ") for line in self.body.decode().split("\n\n") if line]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def ask(
    app: Any,
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    leave_after: int | None = None,
) -> AsgiAnswer:
    """The answer of ``app``. With ``leave_after`` the client leaves after so many pieces of the answer."""
    answer, left = AsgiAnswer(), trio.Event()
    pieces = 0
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal pieces
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        answer.body += message.get("body", b"")
        pieces += 1
        if not message.get("more_body", False) or pieces == leave_after:
            left.set()

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    with trio.fail_after(60):
        await app(scope, receive, send)
    return answer

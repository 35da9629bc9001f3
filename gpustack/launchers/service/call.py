"""One HTTP request to an engine program: its body in pieces, and its answer, over ASGI."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, NoReturn
from urllib.parse import parse_qs

import trio

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

JSON = "application/json"
EVENTS = "text/event-stream"


class ServiceFault(Exception):
    """The request cannot be answered; ``str()`` is the sentence for the client, ``status`` the HTTP status."""

    def __init__(self, sentence: str, status: int = 400, *, param: str | None = None) -> None:
        self.status = status
        self.param = param
        super().__init__(sentence)


class ServiceCall:
    """One request. Its body is read once; after that ``left`` tells when the client has gone."""

    def __init__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=100)
        self.began = False
        """Whether the head of the answer was sent."""
        self.ending = False
        """Whether the last of the answer is being sent, or was. The server tells that the client has left then too."""
        self._headers = {name.lower(): value for name, value in scope["headers"]}
        self._receive = receive
        self._send = send
        self._body_read = trio.Event()

    def header(self, name: bytes) -> bytes | None:
        return self._headers.get(name)

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ``ServiceFault`` (413) beyond ``limit`` bytes."""
        seen = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ServiceFault("The client left before it had sent its request", 499)
            body: bytes = message.get("body", b"")
            seen += len(body)
            if seen > limit:
                raise ServiceFault(f"The request is larger than {limit} bytes", 413)
            if body:
                yield body
            if not message.get("more_body", False):
                self._body_read.set()
                return

    async def document(self, limit: int) -> dict[str, Any]:
        """The body as a JSON object. Raises ``ServiceFault``."""
        body = b"".join([piece async for piece in self.chunks(limit)])
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ServiceFault(f"The body is no JSON: {str(error)[:200]}") from error
        if not isinstance(found, dict):
            raise ServiceFault("The body is no JSON object")
        return found

    async def left(self) -> None:
        """Returns when the client has closed its connection. Waits for the body to have been read."""
        await self._body_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, document: object, status: int = 200) -> None:
        """Answer with JSON."""
        await self.answer_bytes(json.dumps(document, ensure_ascii=False).encode(), JSON, status)

    async def answer_bytes(self, body: bytes, content_type: str, status: int = 200) -> None:
        """Answer with a whole body."""
        await self.begin(content_type, status, length=len(body))
        self.ending = True
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, content_type: str, status: int = 200, *, length: int | None = None) -> None:
        """Send the head of an answer whose body follows by ``more`` and ``end``."""
        headers = [(b"content-type", content_type.encode("latin-1")), (b"x-content-type-options", b"nosniff")]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        self.began = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def more(self, piece: bytes) -> None:
        if piece:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def event(self, document: object) -> None:
        """Send one event of an event stream."""
        await self.more(b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n")

    async def end(self) -> None:
        self.ending = True
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, fault: ServiceFault) -> None:
        """Answer with a fault, in the form of OpenAI's API; inside a stream of events as its last event."""
        error = {
            "error": {"message": str(fault), "type": _kind(fault.status), "param": fault.param, "code": None}
        }
        if self.began:
            await self.event(error)
            await self.end()
        else:
            await self.answer(error, fault.status)


def _kind(status: int) -> str:
    if status == HTTPStatus.UNAUTHORIZED:
        return "authentication_error"
    return "invalid_request_error" if status < 500 else "server_error"


def refuse_field(name: str, sentence: str) -> NoReturn:
    """Raises ``ServiceFault`` for a field of the request."""
    raise ServiceFault(f"'{name}' {sentence}", param=name)

"""The client of our own API for the commands of a user: lists, single objects, watches, logs and chat."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator, Mapping
from json import dumps as as_json
from json import loads as from_json
from typing import Any
from urllib.parse import urlencode

import attrs

from gpustack.errors import Unavailable
from gpustack.remote.http import ANSWER_LIMIT, BadResponse, HttpClient, HttpResponse, StreamedResponse
from gpustack.remote.server_error import fault_of, raise_for_status

Doc = dict[str, Any]
Value = str | int | bool

CREATED, UPDATED, DELETED, SYNCED = 1, 2, 3, 6
"""The numbers that watch events have on the wire."""

_PAGE = 100
_MOST_PAGES = 10_000
_LINE_LIMIT = 4 << 20
_FAULT_LIMIT = 64 << 10
_ANSWER_WITHIN = 60.0
_SILENT_FOR = 45.0
"""Seconds: a watch says something at least every 15."""
_TOKEN_WITHIN = 600.0
_DRAWN_WITHIN = 1800.0
_THROUGH_WITHIN = 25.0


@attrs.frozen
class ResourceEvent:
    """One line of a watch. ``kind`` is CREATED, UPDATED, DELETED or SYNCED."""

    kind: int
    item: Doc


# The iterators below are no generators: one left suspended inside another is closed by the garbage collector only.


@attrs.define(eq=False)
class _LineStream:
    """The lines of a body, blank ones left out. Raises BadResponse for a line that is too long."""

    url: str
    _pieces: AsyncIterator[bytes]
    _ready: deque[bytes] = attrs.field(factory=deque)
    _rest: bytes = b""

    def __aiter__(self) -> _LineStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._ready:
            *lines, self._rest = (self._rest + await anext(self._pieces)).split(b"\n")
            if len(self._rest) > _LINE_LIMIT:
                raise BadResponse(self.url, "sent a line that is too long")
            self._ready.extend(line for line in lines if line.strip())
        return self._ready.popleft()


@attrs.frozen(eq=False)
class EventStream:
    """The events of a watch. The blank lines that keep the connection alive are left out."""

    _lines: _LineStream

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> ResourceEvent:
        event = _read(self._lines.url, await anext(self._lines))
        return ResourceEvent(int(event.get("type") or 0), event.get("data") or {})


@attrs.frozen(eq=False)
class ChatChunkStream:
    """The chunks of a streamed completion. Raises the error that the server reports in the stream."""

    _lines: _LineStream

    def __aiter__(self) -> ChatChunkStream:
        return self

    async def __anext__(self) -> Doc:
        while True:
            line = await anext(self._lines)
            if not line.startswith(b"data:"):
                continue
            text = line[5:].strip()
            if text == b"[DONE]":
                raise StopAsyncIteration
            return _chunk(self._lines.url, text)


@attrs.define(eq=False)
class _OneChunk:
    """The answer of an engine that does not stream, as a stream of one."""

    _left: Doc | None

    def __aiter__(self) -> _OneChunk:
        return self

    async def __anext__(self) -> Doc:
        if self._left is None:
            raise StopAsyncIteration
        chunk, self._left = self._left, None
        return chunk


def _chunk(url: str, text: bytes) -> Doc:
    chunk = _read(url, text)
    if isinstance(chunk.get("error"), dict):
        code = chunk["error"].get("code")
        raise fault_of(code if isinstance(code, int) else 503, text)
    return chunk


def _read(url: str, text: bytes) -> Doc:
    try:
        document = from_json(text)
    except ValueError as error:
        raise BadResponse(url, "sent a line that is not JSON") from error
    if not isinstance(document, dict):
        raise BadResponse(url, "sent a line that is not an object")
    return document


@attrs.define(eq=False)
class AdminClient:
    """Calls on behalf of a user. ``client`` must stay open meanwhile.

    All raise the GpustackError that the server's answer stands for, RemoteError when there is none. All are
    cancellable; whether the server has made a change is then not known.
    """

    _client: HttpClient
    _headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    async def all(self, path: str, **filters: Value) -> list[Doc]:
        """Every item of a list, in the server's order; an item that moved between pages meanwhile comes once."""
        found: dict[Any, Doc] = {}
        for page in range(1, _MOST_PAGES):
            document = _object(
                await self._call("GET", _query(path, {**filters, "page": page, "perPage": _PAGE}))
            )
            items = [item for item in document.get("items") or () if isinstance(item, dict)]
            found.update((item.get("id"), item) for item in items)
            pages = (document.get("pagination") or {}).get("totalPage", 1)
            if page >= pages or not items:
                break
        return list(found.values())

    async def get(self, path: str) -> Doc:
        """One object; raises NotFound."""
        return _object(await self._call("GET", path))

    async def create(self, path: str, document: Mapping[str, Any]) -> Doc:
        return _object(await self._call("POST", path, dict(document)))

    async def attempt(self, path: str, document: Mapping[str, Any]) -> tuple[int, Doc]:
        """The status and the answer to a document that may have faults (422), each told as data."""
        reply = await self._client.request(
            "POST",
            path,
            json=dict(document),
            headers=self._headers,
            deadline=_ANSWER_WITHIN,
            limit=4 * ANSWER_LIMIT,
        )
        found = reply.json() if reply.status == 422 else None
        if isinstance(found, dict) and isinstance(found.get("faults"), list):
            return 422, found
        return reply.status, _object(raise_for_status(reply).json())

    async def update(self, path: str, changes: Mapping[str, Any]) -> Doc:
        """Change the given fields; others keep their values."""
        return _object(await self._call("PUT", path, dict(changes)))

    async def delete(self, path: str) -> Doc | None:
        """Remove the object; returns the server's remark on it, if it has one."""
        told = await self._call("DELETE", path)
        return told if isinstance(told, dict) else None

    @contextlib.asynccontextmanager
    async def watch(self, path: str, **filters: Value) -> AsyncIterator[EventStream]:
        """What a list holds now, then its changes, until the server ends the stream."""
        query = _query(path, {**filters, "watch": "true", "sync": "true"})
        async with self._stream("GET", query, timeout=_SILENT_FOR) as incoming:
            yield EventStream(_LineStream(incoming.url, incoming.pieces()))

    @contextlib.asynccontextmanager
    async def text(self, path: str, *, follow: bool, **filters: Value) -> AsyncIterator[AsyncIterator[bytes]]:
        """A body of text as it arrives. With ``follow`` it may be silent for any time."""
        patience = math.inf if follow else _ANSWER_WITHIN
        query = _query(path, {**filters, "follow": "true" if follow else "false"})
        async with self._stream("GET", query, timeout=patience) as incoming:
            yield incoming.pieces()

    @contextlib.asynccontextmanager
    async def chat(self, document: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[Doc]]:
        """The chunks of a streamed chat completion; an engine that does not stream answers in one."""
        body = {**document, "stream": True}
        async with self._stream("POST", "/v1/chat/completions", json=body, timeout=_TOKEN_WITHIN) as incoming:
            if incoming.headers.get("content-type", "").startswith("application/json"):
                yield _OneChunk(_chunk(incoming.url, await incoming.read()))
            else:
                yield ChatChunkStream(_LineStream(incoming.url, incoming.pieces()))

    async def draw(self, document: Mapping[str, Any]) -> Doc:
        """The answer of an image model; it may take up to half an hour."""
        body = dict(document)
        path = "/v1/images/generations"
        async with self._stream("POST", path, json=body, timeout=_DRAWN_WITHIN) as incoming:
            return _read(incoming.url, await incoming.read(4 * ANSWER_LIMIT))

    async def head(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of whatever the server answers; raises RemoteError where it does not."""
        reply = await self._client.request(
            "GET", path, headers=self._headers, deadline=10.0, limit=_FAULT_LIMIT
        )
        return reply.status, reply.headers, reply.body

    async def through(self, path: str) -> HttpResponse:
        """What another host answers that the server asks for us, whatever its status; raises RemoteError."""
        return await self._client.request(
            "GET", path, headers=self._headers, deadline=_THROUGH_WITHIN, limit=4 * ANSWER_LIMIT
        )

    async def _call(self, method: str, path: str, body: Doc | None = None) -> Any:
        reply = await self._client.request(
            method, path, json=body, headers=self._headers, deadline=_ANSWER_WITHIN, limit=4 * ANSWER_LIMIT
        )
        return raise_for_status(reply).json()

    @contextlib.asynccontextmanager
    async def _stream(
        self,
        method: str,
        path: str,
        *,
        json: Doc | None = None,
        timeout: float,  # noqa: ASYNC109  # patience between bytes, not a limit for the block
    ) -> AsyncIterator[StreamedResponse]:
        body = None if json is None else as_json(json).encode()
        headers = {**self._headers, **({} if body is None else {"content-type": "application/json"})}
        async with self._client.stream(method, path, headers=headers, body=body, timeout=timeout) as incoming:
            if incoming.status >= 300:
                told = await incoming.read(_FAULT_LIMIT)
                raise fault_of(incoming.status, told, incoming.headers.get("retry-after"))
            yield incoming


def _query(path: str, filters: Mapping[str, Value]) -> str:
    return f"{path}?{urlencode(filters)}" if filters else path


def _object(answer: object) -> Doc:
    if not isinstance(answer, dict):
        raise Unavailable(
            "The server answered with something that is not an object: is it a GPUStack server?"
        )
    return answer

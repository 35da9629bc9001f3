"""One request to an upstream and its response: sent, answered, its connection given back or closed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final

import attrs
import trio

from gpustack.http1.chunked import LAST_CHUNK, encode_chunk
from gpustack.http1.head import ResponseHead
from gpustack.http1.reactor import StreamTimeout
from gpustack.http1.stream import Bytes
from gpustack.http1.upstream import (
    ConnectFailed,
    UpstreamAddress,
    UpstreamClosed,
    UpstreamConnection,
    UpstreamProtocolError,
    UpstreamResponse,
    UpstreamTimeout,
    dial,
)

if TYPE_CHECKING:
    from gpustack.http1.pool import ConnectionPool

RequestBody = bytes | AsyncIterator[bytes] | None

_JOINED: Final = 64 * 1024
"""Bytes of a body that is sent together with the head."""
_SHORT: Final = 256 * 1024
"""Bytes of a body that a worker of ours takes in at once, however busy its engine is."""
_CLOSING: Final = 1.0
"""Seconds in which the iterator of a body may end."""
_MAX_INTERIM: Final = 32
"""Interim responses (1xx) to one request."""


@attrs.frozen(kw_only=True)
class UpstreamRequest:
    """A request, and how many seconds each step of it may take; ``head`` is ready to be sent.

    ``fresh``: only over a new connection. ``redial``: over a new one if a kept one closes without an answer.
    """

    address: UpstreamAddress
    method: str
    head: bytes
    body: RequestBody
    content_length: int | None
    connect_timeout: float
    first_byte_timeout: float
    idle_timeout: float
    fresh: bool
    redial: bool


class UpstreamExchange(AbstractAsyncContextManager[UpstreamResponse]):
    """A request under way: entering it sends the request and reads the head of the response, leaving it ends both.

    ``runs`` counts the connections on which something of it was sent: so often the upstream may have begun to work on
    it. ``stale`` tells that the last of them was a kept one that closed without an answer: before the request came, or
    because of it.
    """

    __slots__ = (
        "_aborted",
        "_interim",
        "_pool",
        "_request",
        "_response",
        "_sent",
        "_upstream",
        "runs",
        "stale",
    )

    def __init__(self, pool: ConnectionPool, request: UpstreamRequest) -> None:
        self._pool = pool
        self._request = request
        self._upstream: UpstreamConnection | None = None
        """The one on which the request is sent, or was last."""
        self._response: UpstreamResponse | None = None
        self._sent = False
        self._interim = 0
        self._aborted = False
        self.runs = 0
        self.stale = False

    @property
    def heard(self) -> float:
        """When something of the response came last, by the clock of the reactor; minus infinity before."""
        return -inf if self._response is None else self._response.heard

    def abort(self) -> None:
        """End it, from another task: whoever waits for it gets UpstreamClosed."""
        self._aborted = True
        if self._upstream is not None:
            self._upstream.close()

    async def __aenter__(self) -> UpstreamResponse:
        request, pool = self._request, self._pool
        pool.in_flight += 1
        try:
            # What an iterator gave cannot be sent a second time, so it never meets a connection that may be dead.
            replayable = request.body is None or isinstance(request.body, bytes)
            kept = pool.take(request.address) if replayable and not request.fresh else None
            if kept is not None:
                try:
                    return await self._ask(kept)
                except UpstreamClosed as error:
                    if error.response_started:
                        raise
                    self.stale = not self._aborted
                    if self._aborted or not request.redial:
                        raise
            connection = await dial(request.address, pool.reactor, request.connect_timeout)
            if self._aborted:
                connection.close()
                raise ConnectFailed(f"{request.address} was given up before anything was sent.")
            self.stale = False
            return await self._ask(connection)
        except BaseException:
            pool.in_flight -= 1
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.in_flight -= 1
        upstream, response = self._upstream, self._response
        if upstream is None or response is None:
            return
        if self._sent and response.complete and response.head.keep_alive and not upstream.read_buffer.data:
            self._pool.give_back(upstream)
        else:
            upstream.close()

    async def _ask(self, upstream: UpstreamConnection) -> UpstreamResponse:
        """Send the request over the connection and read the head of its response.

        A response that begins before the request has ended ends the sending: nothing here is full-duplex.
        """
        self._upstream = upstream
        self.runs += 1
        request = self._request
        body = request.body
        try:
            if body is None or (isinstance(body, bytes) and len(body) <= _JOINED):
                head = await self._send(upstream, request.head + body if body else request.head)
            else:
                head = await self._send_long(upstream, body)
            if head is None:
                self._sent = True
                head = await self._final_head(upstream)
        except BaseException:
            upstream.close()
            raise
        self._response = UpstreamResponse(upstream, head, self._pool.reactor, request.idle_timeout)
        return self._response

    async def _send_long(
        self, upstream: UpstreamConnection, body: bytes | AsyncIterator[bytes]
    ) -> ResponseHead | None:
        if isinstance(body, bytes):
            upstream.be_patient(len(body) > _SHORT)
            return await self._send(upstream, self._request.head) or await self._send(upstream, body)
        upstream.be_patient(True)
        try:
            return await self._send(upstream, self._request.head) or await self._send_pieces(upstream, body)
        finally:
            await _close(body)

    async def _send_pieces(
        self, upstream: UpstreamConnection, body: AsyncIterator[bytes]
    ) -> ResponseHead | None:
        chunked = self._request.content_length is None
        left = self._request.content_length or 0
        async for piece in body:
            if not piece:
                continue
            left -= len(piece)
            if not chunked and left < 0:
                raise ValueError("the body is longer than its content length")
            head = await self._send(upstream, encode_chunk(piece) if chunked else piece)
            if head is not None:
                return head
        if chunked:
            return await self._send(upstream, LAST_CHUNK)
        if left:
            raise ValueError("the body is shorter than its content length")
        return None

    async def _send(self, upstream: UpstreamConnection, piece: bytes) -> ResponseHead | None:
        """Returns the head of the response if that came before all of the piece was sent."""
        unsent: Bytes = piece
        while unsent:
            try:
                unsent = await upstream.stream.send_until_answered(unsent, self._request.idle_timeout)
            except StreamTimeout as error:
                raise UpstreamTimeout(
                    f"{self._request.address} stopped taking the request.", "send"
                ) from error
            except OSError:
                return await self._final_head(upstream)  # it may have answered before it closed
            if unsent:
                head = await upstream.read_head(self._request.method, self._first_byte_deadline())
                if head.status >= 200:
                    return head
                self._count_interim()
        return None

    async def _final_head(self, upstream: UpstreamConnection) -> ResponseHead:
        """The head of the response proper; interim ones are skipped."""
        until = self._first_byte_deadline()
        while True:
            head = await upstream.read_head(self._request.method, until)
            if head.status >= 200:
                return head
            self._count_interim()

    def _count_interim(self) -> None:
        self._interim += 1
        if self._interim > _MAX_INTERIM:
            raise UpstreamProtocolError(
                f"{self._request.address} sent more than {_MAX_INTERIM} interim answers."
            )

    def _first_byte_deadline(self) -> float:
        return self._pool.reactor.deadline(self._request.first_byte_timeout)


async def _close(body: AsyncIterator[bytes]) -> None:
    """Ends a generator here and now: left to the garbage collector it could not finish."""
    if isinstance(body, AsyncGenerator):
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING):
            await body.aclose()

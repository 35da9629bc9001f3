"""One request to an upstream: sent, answered, its connection given back or closed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final

import attrs
import trio

from gpustack.http1.chunked import LAST_CHUNK, encode_chunk
from gpustack.http1.fault import ConnectFailed, UpstreamClosed, UpstreamProtocolError, UpstreamTimeout
from gpustack.http1.head import ResponseHead
from gpustack.http1.reactor import StreamTimeout
from gpustack.http1.stream import Bytes
from gpustack.http1.upstream import UpstreamAddress, UpstreamConnection, UpstreamResponse, dial

if TYPE_CHECKING:
    from gpustack.http1.pool import ConnectionPool

RequestBody = bytes | AsyncIterator[bytes] | None

_JOINED: Final = 64 * 1024
_SHORT: Final = 256 * 1024
"""Bytes of a body that a worker of ours takes in at once, however busy its engine is."""
_CLOSING: Final = 1.0
_INTERIM: Final = 32
"""Answers of the kind 1xx before the one proper: more are a flood."""


@attrs.frozen(kw_only=True)
class UpstreamRequest:
    """What is asked of whom, and how long each step may take; ``head`` is ready to be sent.

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
    """The request while it is under way; entering it sends the request and reads the response's head.

    ``runs`` counts the connections on which something of it was sent: the upstream may have begun to work on it as
    often. ``stale`` says that the last of them was a kept one that closed without an answer: it may have been closed
    before the request came, or because of it.
    """

    __slots__ = (
        "_aborted",
        "_ask",
        "_interim",
        "_pool",
        "_response",
        "_sent",
        "_trying",
        "_upstream",
        "runs",
        "stale",
    )

    def __init__(self, pool: ConnectionPool, ask: UpstreamRequest) -> None:
        self._pool = pool
        self._ask = ask
        self._upstream: UpstreamConnection | None = None
        self._response: UpstreamResponse | None = None
        self._sent = False
        self._interim = 0
        self._trying: UpstreamConnection | None = None
        self._aborted = False
        self.runs = 0
        self.stale = False

    @property
    def heard(self) -> float:
        """When something of the response came last, by the clock of the reactor; minus infinity before."""
        return -inf if self._response is None else self._response.heard

    def abort(self) -> None:
        """Give the upstream up, from another task: whoever waits for it gets UpstreamClosed."""
        self._aborted = True
        upstream = self._upstream or self._trying
        if upstream is not None:
            upstream.close()

    async def __aenter__(self) -> UpstreamResponse:
        self._pool.in_flight += 1
        try:
            return await self._answered()
        except BaseException:
            self._pool.in_flight -= 1
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.in_flight -= 1
        upstream, response = self._upstream, self._response
        if upstream is None or response is None:
            return
        if self._sent and response.complete and response.head.keep_alive and not upstream.inbox.buffer:
            self._pool.give_back(upstream)
        else:
            upstream.close()

    async def _answered(self) -> UpstreamResponse:
        ask, pool = self._ask, self._pool
        replayable = ask.body is None or isinstance(ask.body, bytes)
        kept = pool.take(ask.address) if replayable and not ask.fresh else None
        if kept is not None:
            try:
                return await self._try(kept)
            except UpstreamClosed as error:
                if error.response_started:
                    raise
                self.stale = not self._aborted
                if self._aborted or not ask.redial:
                    raise
        fresh = await dial(ask.address, pool.reactor, ask.connect_timeout)
        if self._aborted:
            fresh.close()
            raise ConnectFailed(f"{ask.address} was given up before anything was sent.")
        self.stale = False
        return await self._try(fresh)

    async def _try(self, upstream: UpstreamConnection) -> UpstreamResponse:
        self._trying = upstream
        self.runs += 1
        try:
            if not isinstance(self._ask.body, bytes | None) or len(self._ask.body or b"") > _SHORT:
                upstream.be_patient(True)
            head = await self._send(upstream)
            if head is None:
                self._sent = True
                head = await self._final_head(upstream)
        except BaseException:
            upstream.close()
            raise
        self._upstream = upstream
        self._response = UpstreamResponse(upstream, head, self._pool.reactor, self._ask.idle_timeout)
        return self._response

    async def _send(self, upstream: UpstreamConnection) -> ResponseHead | None:
        """Sends the request; returns the response's head if that came before all was sent.

        A response that begins before the request has ended ends the sending: no upstream of ours converses.
        """
        head, body = self._ask.head, self._ask.body
        if body is None or (isinstance(body, bytes) and len(body) <= _JOINED):
            return await self._send_piece(upstream, head + body if body else head)
        if not isinstance(body, bytes):
            try:
                return await self._send_piece(upstream, head) or await self._send_pieces(upstream, body)
            finally:
                await _close(body)
        return await self._send_piece(upstream, head) or await self._send_piece(upstream, body)

    async def _send_pieces(
        self, upstream: UpstreamConnection, body: AsyncIterator[bytes]
    ) -> ResponseHead | None:
        chunked = self._ask.content_length is None
        left = self._ask.content_length or 0
        async for piece in body:
            if not piece:
                continue
            left -= len(piece)
            if not chunked and left < 0:
                raise ValueError("the body is longer than its content length")
            head = await self._send_piece(upstream, encode_chunk(piece) if chunked else piece)
            if head is not None:
                return head
        if chunked:
            return await self._send_piece(upstream, LAST_CHUNK)
        if left:
            raise ValueError("the body is shorter than its content length")
        return None

    async def _send_piece(self, upstream: UpstreamConnection, piece: bytes) -> ResponseHead | None:
        unsent: Bytes = piece
        while unsent:
            try:
                unsent = await upstream.stream.send_until_answered(unsent, self._ask.idle_timeout)
            except StreamTimeout as error:
                raise UpstreamTimeout(f"{self._ask.address} stopped taking the request.", "send") from error
            except OSError:
                return await self._final_head(upstream)  # it may have answered before it closed
            if unsent:
                head = await self._next_head(upstream, self._until())
                if head.status >= 200:
                    return head
        return None

    async def _final_head(self, upstream: UpstreamConnection) -> ResponseHead:
        """The head of the response proper; interim ones are passed over."""
        until = self._until()
        while (head := await self._next_head(upstream, until)).status < 200:
            pass
        return head

    async def _next_head(self, upstream: UpstreamConnection, until: float) -> ResponseHead:
        head = await upstream.read_head(self._ask.method, until)
        if head.status < 200:
            self._interim += 1
            if self._interim > _INTERIM:
                raise UpstreamProtocolError(f"{self._ask.address} sent more than {_INTERIM} interim answers.")
        return head

    def _until(self) -> float:
        return self._pool.reactor.deadline(self._ask.first_byte_timeout)


async def _close(body: AsyncIterator[bytes]) -> None:
    """Ends a generator here and now: left to the garbage collector it could not finish."""
    if isinstance(body, AsyncGenerator):
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING):
            await body.aclose()

"""One request and its response, as a handler sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from gpustack.errors import BadRequest, GatewayTimeout, PayloadTooLarge
from gpustack.http1.address import Peer
from gpustack.http1.body import Body, TruncatedBody
from gpustack.http1.chunked import LAST_CHUNK, ChunkError, encode_chunk
from gpustack.http1.fields import REQUEST_ID_FIELD, Fields, Framing, field_lines, status_line
from gpustack.http1.head import RequestHead
from gpustack.http1.reactor import StreamTimeout

if TYPE_CHECKING:
    from gpustack.http1.connection import Connection
    from gpustack.http1.upstream import UpstreamResponse


class ClientDisconnect(Exception):
    """The client has left, or does not read: nobody is left to answer. Handlers let it rise."""


class BodyError(BadRequest):
    """The request body breaks its own framing."""


class BodyTimeout(GatewayTimeout):
    """The client has stopped sending its request body."""


class Exchange:
    """What a handler reads a request from and sends its response with.

    The handler is cancelled when the client leaves. All methods may be cancelled midway; the connection
    is closed then. ``keep`` tells whether the connection will serve another request. ``extra`` are headers that
    its response carries in any case, errors included; set them before it starts. ``name`` is its
    ``X-Request-Id``, empty where requests have none.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_continue",
        "_left",
        "_pending",
        "body",
        "bodyless",
        "extra",
        "head",
        "keep",
        "name",
        "response_complete",
        "response_started",
        "status",
    )

    def __init__(self, connection: Connection, head: RequestHead) -> None:
        self._connection = connection
        self.head = head
        self.body = Body(connection.read_buffer, head.framing, head.content_length)
        self.keep = False
        self.bodyless = False
        self.extra: Fields = ()
        self.name = b""
        self.response_started = False
        self.response_complete = False
        self.status: int | None = None
        self._continue = head.expects_continue
        self._chunked = False
        self._left: int | None = None
        self._pending = b""

    def __repr__(self) -> str:
        state = "not answered" if not self.response_started else f"answering {self.status}"
        if self.response_complete:
            state = f"answered {self.status}"
        return f"<Exchange {self.head.method} {self.head.path} of {self.peer.host}, {state}>"

    @property
    def peer(self) -> Peer:
        return self._connection.peer

    @property
    def local(self) -> Peer:
        """This end of the connection."""
        return self._connection.local

    async def owner(self) -> int | None:
        """The user id of the program at the other end; ``None`` where it is on another machine, or not known.

        Only for peers on the loopback. The kernel is asked once for each connection.
        """
        return await self._connection.owner()

    @property
    def tls(self) -> bool:
        return self._connection.stream.tls

    @property
    def abandoned(self) -> bool:
        """Whether the client has left or the connection is being cut: nothing more can be sent."""
        return self._connection.abandoned

    def cut(self) -> None:
        """Cancel the handler and close the connection, from another task. Does nothing once the exchange has ended."""
        self._connection.cut()

    # --- the request's body ---

    async def read_body(self, limit: int, taken: Callable[[int], None] | None = None) -> bytes:
        """The whole body. Raises PayloadTooLarge, BodyError, BodyTimeout, ClientDisconnect.

        ``taken`` is called with the size of each piece of a body that comes in several; it may raise to end it.
        """
        length = self.head.content_length
        if length is not None and length > limit:
            raise PayloadTooLarge(f"The request body is {length} bytes; at most {limit} bytes are accepted.")
        if not self._continue and (whole := self.body.take_whole()) is not None:
            return whole
        piece = await self.next_chunk()
        if self.body.done and len(piece) <= limit:
            return piece
        # One growing block goes back to the system as a whole; many small ones would leave the memory fragmented.
        gathered = bytearray(piece)
        if taken is not None:
            taken(len(piece))
        while len(gathered) <= limit and (piece := await self.next_chunk()):
            gathered += piece
            if taken is not None:
                taken(len(piece))
        if len(gathered) > limit:
            raise PayloadTooLarge(f"The request body is larger than {limit} bytes.")
        return bytes(gathered)

    def body_chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece as it comes, with flat memory. Raises as next_chunk does."""
        return _BodyIterator(self)

    async def next_chunk(self) -> bytes:
        """The next piece of the body, ``b""`` at its end. Raises BodyError, BodyTimeout, ClientDisconnect."""
        connection = self._connection
        if self._continue:
            self._continue = False
            if not connection.read_buffer.data and not self.response_started:
                await connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            return await self.body.next(connection.body_deadline())
        except ChunkError as error:
            raise BodyError(f"The request body is malformed: {error}") from error
        except StreamTimeout as error:
            raise BodyTimeout("The client has stopped sending its request body.") from error
        except (TruncatedBody, OSError) as error:
            raise ClientDisconnect from error

    # --- the response ---

    async def respond(self, status: int, headers: Fields = (), body: bytes = b"") -> None:
        """A whole response. Raises ValueError for headers that the transport owns, ClientDisconnect."""
        head = self._start(status, headers, content_length=len(body))
        self.response_complete = True
        await self._connection.write(head if self.bodyless or not body else head + body)

    async def start_response(
        self, status: int, headers: Fields = (), *, content_length: int | None = None, flush: bool = True
    ) -> None:
        """The head of a response whose body follows by ``send`` and ends by ``finish``.

        Without ``content_length`` the body is chunked, or ends with the connection for HTTP/1.0.
        With ``flush=False`` the head goes out together with the first piece.
        """
        self._pending = self._start(status, headers, content_length=content_length)
        if flush:
            await self._write(b"")

    async def send(self, data: bytes) -> None:
        """A piece of the body; waits while the client does not read. Raises ClientDisconnect."""
        if not self.response_started or self.response_complete:
            raise RuntimeError("there is no response to send this in")
        if not data or self.bodyless:
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise ValueError("the body is longer than its content length")
        if self._chunked:
            data = encode_chunk(data)
        if self._pending:
            data, self._pending = self._pending + data, b""
        await self._connection.write(data)

    async def finish(self) -> None:
        """The end of the body. Raises ValueError when it is shorter than was said, ClientDisconnect."""
        if not self.response_started:
            raise RuntimeError("there is no response to finish")
        if self.response_complete:
            return
        if self._left and not self.bodyless:
            raise ValueError("the body is shorter than its content length")
        self.response_complete = True
        await self._write(LAST_CHUNK if self._chunked else b"")

    async def relay(self, response: UpstreamResponse, headers: Fields) -> None:
        """A response with the status and the body of an upstream's, piece by piece as fast as the client reads.

        Raises UpstreamClosed, UpstreamTimeout and UpstreamProtocolError from the upstream, ClientDisconnect; the
        response is left unfinished then.
        """
        await self.start_response(
            response.status,
            headers,
            content_length=response.content_length,
            flush=not response.has_buffered,
        )
        while data := await response.next_chunk():
            await self.send(data)
        await self.finish()

    async def _write(self, data: bytes) -> None:
        if self._pending:
            data, self._pending = self._pending + data, b""
        if data:
            await self._connection.write(data)

    def _start(self, status: int, headers: Fields, *, content_length: int | None) -> bytes:
        """The head's bytes; decides how the body ends and whether the connection is kept."""
        if self.response_started:
            raise RuntimeError("the response has been started already")
        lines = field_lines([*headers, *self.extra] if self.extra else headers)
        head = self.head
        old = head.version == "1.0"
        no_length = status in (204, 304)
        self.bodyless = no_length or head.method == "HEAD"
        keep = head.keep_alive and self.body.buffered and not self._connection.stopping
        framing = b""
        if content_length is not None:
            self._left = content_length
            framing = b"" if no_length else b"content-length: %d\r\n" % content_length
        elif not self.bodyless and old:
            keep = False
        elif not no_length:
            framing = b"" if old else b"transfer-encoding: chunked\r\n"
            self._chunked = not self.bodyless
        if not keep:
            framing += b"connection: close\r\n"
        elif old:
            framing += b"connection: keep-alive\r\n"
        self.keep = keep
        self.status = status
        self.response_started = True
        name = b"%b: %b\r\n" % (REQUEST_ID_FIELD, self.name) if self.name else b""
        return b"%b%b%b%b%b\r\n" % (status_line(status), self._connection.date_line(), name, lines, framing)

    @property
    def ends_with_connection(self) -> bool:
        """Whether the body ends with the connection, so that only a reset shows the client that it was cut."""
        return self.response_started and not (self._chunked or self.bodyless or self._left is not None)

    # --- another protocol on the same connection ---

    async def switch_protocols(self, headers: Fields) -> None:
        """Answers 101; from here on ``receive_raw`` and ``send_raw`` carry another protocol's bytes."""
        if self.response_started or self.head.framing is not Framing.NONE:
            raise RuntimeError("the protocol can be switched only in answer to a request without a body")
        lines = field_lines(headers, frozenset())
        self.response_started = True
        self.status = 101
        self.keep = False
        await self._connection.write(status_line(101) + lines + b"\r\n")

    async def receive_raw(self) -> bytes:
        """The next bytes, ``b""`` at the end; waits as long as it takes. Raises ClientDisconnect."""
        try:
            return self._connection.read_buffer.pop() or await self._connection.stream.recv()
        except OSError as error:
            raise ClientDisconnect from error

    async def send_raw(self, data: bytes) -> None:
        """Bytes of the other protocol. Raises ClientDisconnect."""
        await self._connection.write(data)


class _BodyIterator:
    """A request body to iterate over; an async generator would need closing by whoever stops early."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __aiter__(self) -> _BodyIterator:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._exchange.next_chunk()
        if not piece:
            raise StopAsyncIteration
        return piece

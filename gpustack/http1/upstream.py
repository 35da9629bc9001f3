"""The client side of one connection: how it is dialled, the responses read from it, and the errors by name."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final, Literal

import attrs
import trio

from gpustack.errors import GatewayTimeout, PayloadTooLarge, Unavailable
from gpustack.http1.body import Body, ReadBuffer, TruncatedBody
from gpustack.http1.chunked import ChunkError
from gpustack.http1.fields import HeadError, NeedMore
from gpustack.http1.head import ResponseHead, parse_response_head
from gpustack.http1.reactor import Reactor, StreamTimeout
from gpustack.http1.stream import Stream, end_unacknowledged, is_elsewhere, keep_alive, new_stream
from gpustack.text import said_by

_SWITCHING_PROTOCOLS: Final = 101

Stage = Literal["connect", "send", "first_byte", "body"]


class UpstreamError(Unavailable):
    """An upstream failed. ``response_started``: bytes of its response have been read."""

    response_started = False


class ConnectFailed(UpstreamError):
    """No connection could be made: nothing was sent, so it is safe to try elsewhere."""


class UpstreamClosed(UpstreamError):
    """The upstream closed, before its response or inside it (``response_started``)."""

    def __init__(self, message: str, *, response_started: bool) -> None:
        self.response_started = response_started
        super().__init__(message)


class UpstreamProtocolError(UpstreamError):
    """What the upstream sent is not HTTP/1.1, or could be read in two ways."""


class UpstreamTimeout(UpstreamError, GatewayTimeout):
    """The upstream took too long; ``stage`` tells with what."""

    def __init__(self, message: str, stage: Stage) -> None:
        self.stage = stage
        self.response_started = stage == "body"
        super().__init__(message)


@attrs.frozen(cache_hash=True)
class UpstreamAddress:
    """A host and port, or the path of a local socket; with ``tls`` it is secured."""

    host: str
    port: int
    tls: ssl.SSLContext | None = attrs.field(default=None, kw_only=True, repr=False)
    unix: Path | None = attrs.field(default=None, kw_only=True)

    def __str__(self) -> str:
        if self.unix is not None:
            return str(self.unix)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UpstreamConnection:
    """A connection to an upstream, for one request at a time."""

    __slots__ = ("address", "idle_since", "patient", "read_buffer", "stream")

    def __init__(self, address: UpstreamAddress, stream: Stream) -> None:
        self.address = address
        self.stream = stream
        self.read_buffer = ReadBuffer(stream)
        self.patient = False
        self.idle_since = inf

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self.address} {self.stream!r}>"

    def close(self) -> None:
        self.stream.close()

    def be_patient(self, yes: bool) -> None:
        """Whether the peer may be slow to read, as while a long body is sent. It does not matter on this machine."""
        if self.patient is yes or self.address.unix is not None:
            return
        sock = self.stream.sock
        with suppress(OSError):  # it has been closed meanwhile, which its next use will show
            if is_elsewhere(str(sock.getpeername()[0])):
                end_unacknowledged(sock, yes=not yes)
                self.patient = yes

    async def read_head(self, method: str, until: float) -> ResponseHead:
        """The next response head, an interim one (1xx) too. Raises UpstreamClosed, UpstreamTimeout and
        UpstreamProtocolError."""
        read_buffer = self.read_buffer
        while True:
            if read_buffer.data and isinstance(head := self._parse_head(method), ResponseHead):
                read_buffer.data = read_buffer.data[head.size :]
                return head
            try:
                data = await self.stream.recv(until)
            except StreamTimeout as error:
                raise UpstreamTimeout(f"{self.address} did not answer in time.", "first_byte") from error
            except OSError as error:
                raise self.closed(started=bool(read_buffer.data)) from error
            if not data:
                raise self.closed(started=bool(read_buffer.data))
            read_buffer.data = read_buffer.data + data if read_buffer.data else data

    def _parse_head(self, method: str) -> ResponseHead | NeedMore:
        try:
            head = parse_response_head(self.read_buffer.data, method)
        except HeadError as error:
            raise UpstreamProtocolError(
                f"The answer of {self.address} is malformed: {error.sentence}"
            ) from error
        if isinstance(head, ResponseHead) and head.status == _SWITCHING_PROTOCOLS:
            raise UpstreamProtocolError(f"{self.address} switched protocols without being asked to.")
        return head

    def closed(self, *, started: bool) -> UpstreamClosed:
        where = "inside its answer" if started else "without an answer"
        return UpstreamClosed(f"{self.address} closed the connection {where}.", response_started=started)


class UpstreamResponse:
    """The response of an upstream: its head, and its body as it comes."""

    __slots__ = (
        "_body",
        "_idle_timeout",
        "_reactor",
        "_upstream",
        "content_length",
        "head",
        "headers",
        "heard",
        "status",
    )

    def __init__(
        self, upstream: UpstreamConnection, head: ResponseHead, reactor: Reactor, idle_timeout: float
    ) -> None:
        self._upstream = upstream
        self._reactor = reactor
        self._idle_timeout = idle_timeout
        self._body = Body(upstream.read_buffer, head.framing, head.content_length)
        self.head = head
        self.status = head.status
        self.headers = head.headers
        self.content_length = head.content_length
        """The Content-Length header: of an answer to HEAD the length of what is not sent."""
        self.heard = reactor.now
        """When something of it came last, by the reactor's clock."""

    def __repr__(self) -> str:
        state = "read" if self.complete else "being read"
        return f"<UpstreamResponse {self.status} of {self._upstream.address}, {state}>"

    @property
    def complete(self) -> bool:
        """Whether the whole body has been read."""
        return self._body.done

    @property
    def has_buffered(self) -> bool:
        """Whether bytes of the body came together with the head."""
        return bool(self._upstream.read_buffer.data)

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header; ``name`` in lower case."""
        for key, value in self.head.headers:
            if key == name:
                return value
        return None

    async def next_chunk(self) -> bytes:
        """The next piece of the body, ``b""`` at its end.

        Raises UpstreamTimeout, UpstreamClosed, UpstreamProtocolError.
        """
        if self.content_length is not None and (whole := self._body.take_whole()) is not None:
            return whole
        try:
            piece = await self._body.next(self._reactor.deadline(self._idle_timeout))
            self.heard = self._reactor.now
            return piece
        except StreamTimeout as error:
            raise UpstreamTimeout(f"{self._upstream.address} stopped sending its answer.", "body") from error
        except ChunkError as error:
            fault = UpstreamProtocolError(f"The answer of {self._upstream.address} is malformed: {error}.")
            fault.response_started = True
            raise fault from error
        except (TruncatedBody, OSError) as error:
            raise self._upstream.closed(started=True) from error

    def chunks(self) -> UpstreamResponse:
        """To iterate over: pieces of the body as they come."""
        return self

    def __aiter__(self) -> UpstreamResponse:
        return self

    async def __anext__(self) -> bytes:
        data = await self.next_chunk()
        if not data:
            raise StopAsyncIteration
        return data

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises PayloadTooLarge beyond ``limit`` bytes, and as next_chunk does."""
        pieces: list[bytes] = []
        size = 0
        while data := await self.next_chunk():
            size += len(data)
            if size > limit:
                raise PayloadTooLarge(f"The answer of {self._upstream.address} is larger than {limit} bytes.")
            pieces.append(data)
        return b"".join(pieces)


async def dial(address: UpstreamAddress, reactor: Reactor, seconds: float) -> UpstreamConnection:
    """A new connection, within ``seconds``. Raises ConnectFailed, UpstreamTimeout("connect")."""
    try:
        with trio.fail_after(seconds):
            sock = await _connect(address)
    except trio.TooSlowError as error:
        raise UpstreamTimeout(f"{address} did not accept a connection in time.", "connect") from error
    except OSError as error:
        raise ConnectFailed(f"No connection to {address}: {_reason(error)}.") from error
    except (ValueError, OverflowError) as error:  # UnicodeError: what stands there cannot be a host or port
        raise ConnectFailed(f"No connection to {str(address)!r}: it is not an address.") from error
    try:
        stream = new_stream(reactor, _secured(sock, address))
    except OSError as error:
        sock.close()
        raise ConnectFailed(f"No connection to {address}: {_reason(error)}.") from error
    try:
        await stream.handshake(reactor.deadline(seconds))
    except BaseException as error:
        stream.close()
        if isinstance(error, StreamTimeout):
            raise UpstreamTimeout(
                f"{address} did not finish the TLS handshake in time.", "connect"
            ) from error
        if isinstance(error, OSError):  # ssl.SSLError is one
            raise ConnectFailed(f"No secure connection to {address}: {_reason(error)}.") from error
        raise
    return UpstreamConnection(address, stream)


def _reason(error: OSError) -> str:
    """What went wrong, without the numbers that socket errors carry."""
    if isinstance(error.__cause__, BaseExceptionGroup):  # Trio tried several addresses
        causes = [cause for cause in error.__cause__.exceptions if isinstance(cause, OSError)]
        error = causes[0] if causes else error
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return said_by(error)
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _secured(sock: socket.socket, address: UpstreamAddress) -> socket.socket:
    if address.tls is None:
        return sock
    sock.setblocking(False)
    return address.tls.wrap_socket(sock, do_handshake_on_connect=False, server_hostname=address.host)


async def _connect(address: UpstreamAddress) -> socket.socket:
    if address.unix is not None:
        stream = await trio.open_unix_socket(str(address.unix))
    elif any(letter <= " " or letter == "\x7f" for letter in address.host):
        raise ValueError("a host has no blanks or control characters")  # it also stands in the Host header
    else:
        # tries each address of a name, a little apart, so that a dead one does not delay the others
        stream = await trio.open_tcp_stream(address.host, address.port)
    family, kind, proto = stream.socket.family, stream.socket.type, stream.socket.proto
    sock = socket.socket(family, kind, proto, fileno=stream.socket.detach())
    if address.unix is None and is_elsewhere(str(sock.getpeername()[0])):
        keep_alive(sock)
        end_unacknowledged(sock, yes=True)
    return sock

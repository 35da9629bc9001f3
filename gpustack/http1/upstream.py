"""One connection to an upstream: dialled, asked one request at a time, its responses read."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final

import attrs
import trio

from gpustack.errors import PayloadTooLarge
from gpustack.http1.body import Body, ReadBuffer, TruncatedBody
from gpustack.http1.chunked import ChunkError
from gpustack.http1.fault import ConnectFailed, UpstreamClosed, UpstreamProtocolError, UpstreamTimeout
from gpustack.http1.fields import Framing, HeadError, Headers
from gpustack.http1.head import ResponseHead, parse_response_head
from gpustack.http1.keepalive import end_unacknowledged, is_elsewhere, keep_alive
from gpustack.http1.reactor import Reactor, StreamTimeout
from gpustack.http1.stream import Stream, new_stream

_SWITCHING_PROTOCOLS: Final = 101


@attrs.frozen(cache_hash=True)
class UpstreamAddress:
    """Where an upstream is: a host and port, or the path of a local socket; with ``tls`` when it is secured."""

    host: str
    port: int
    tls: ssl.SSLContext | None = attrs.field(default=None, kw_only=True, repr=False)
    unix: Path | None = attrs.field(default=None, kw_only=True)

    def __str__(self) -> str:
        if self.unix is not None:
            return str(self.unix)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UpstreamConnection:
    """A connection that may be used again; ``reused`` says that it has been."""

    __slots__ = ("address", "idle_since", "inbox", "patient", "reused", "stream")

    def __init__(self, address: UpstreamAddress, stream: Stream) -> None:
        self.address = address
        self.stream = stream
        self.inbox = ReadBuffer(stream)
        self.reused = False
        self.patient = False
        self.idle_since = inf

    def __repr__(self) -> str:
        return f"<Upstream {self.address} {self.stream!r}>"

    def close(self) -> None:
        self.stream.close()

    def be_patient(self, yes: bool) -> None:
        """While a long body is on its way the peer may be slow to read. Of no matter on this machine."""
        if self.patient is yes or self.address.unix is not None:
            return
        sock = self.stream.sock
        with suppress(OSError):  # it has been closed meanwhile, as whoever uses it will find
            if is_elsewhere(str(sock.getpeername()[0])):
                end_unacknowledged(sock, yes=not yes)
                self.patient = yes

    async def read_head(self, method: str, until: float) -> ResponseHead:
        """The next response head, an interim one (1xx) too. Raises the errors of ``fault``."""
        inbox = self.inbox
        while True:
            try:
                head = parse_response_head(inbox.buffer, method)
            except HeadError as error:
                raise UpstreamProtocolError(
                    f"The answer of {self.address} is malformed: {error.sentence}"
                ) from error
            if isinstance(head, ResponseHead):
                if head.status == _SWITCHING_PROTOCOLS:
                    raise UpstreamProtocolError(f"{self.address} switched protocols without being asked to.")
                inbox.buffer = inbox.buffer[head.size :]
                return head
            try:
                data = await self.stream.recv(until)
            except StreamTimeout as error:
                raise UpstreamTimeout(f"{self.address} did not answer in time.", "first_byte") from error
            except OSError as error:
                raise self.closed(started=bool(inbox.buffer)) from error
            if not data:
                raise self.closed(started=bool(inbox.buffer))
            inbox.buffer = inbox.buffer + data if inbox.buffer else data

    def closed(self, *, started: bool) -> UpstreamClosed:
        where = "inside its answer" if started else "without an answer"
        return UpstreamClosed(f"{self.address} closed the connection {where}.", response_started=started)


class UpstreamResponse:
    """An upstream's answer: the head now, the body as it comes."""

    __slots__ = ("_body", "_idle_timeout", "_reactor", "_upstream", "head", "heard")

    def __init__(
        self, upstream: UpstreamConnection, head: ResponseHead, reactor: Reactor, idle_timeout: float
    ) -> None:
        self._upstream = upstream
        self._reactor = reactor
        self._idle_timeout = idle_timeout
        self._body = Body(upstream.inbox, head.framing, head.content_length)
        self.head = head
        self.heard = reactor.now
        """When something of it came last, by the reactor's clock."""

    def __repr__(self) -> str:
        state = "read" if self.complete else "being read"
        return f"<Response {self.status} of {self._upstream.address}, {state}>"

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def headers(self) -> Headers:
        return self.head.headers

    @property
    def framing(self) -> Framing:
        return self.head.framing

    @property
    def content_length(self) -> int | None:
        """The Content-Length header: for an answer to HEAD the length of what is not sent."""
        return self.head.content_length

    @property
    def complete(self) -> bool:
        """Whether the whole body has been read."""
        return self._body.done

    @property
    def has_buffered(self) -> bool:
        """Whether bytes of the body came together with the head."""
        return bool(self._upstream.inbox.buffer)

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
        whole = self._body.take_whole()
        if whole is not None:
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
    if isinstance(error, ssl.SSLError | socket.gaierror) or not error.errno:
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
        # tries each address of a name, a little apart: one that is dead does not hold up the others
        stream = await trio.open_tcp_stream(address.host, address.port)
    family, kind, proto = stream.socket.family, stream.socket.type, stream.socket.proto
    sock = socket.socket(family, kind, proto, fileno=stream.socket.detach())
    if address.unix is None and is_elsewhere(str(sock.getpeername()[0])):
        keep_alive(sock)
        end_unacknowledged(sock, yes=True)
    return sock

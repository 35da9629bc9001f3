"""The life of one client connection: one exchange after the other, then an orderly close."""

from __future__ import annotations

import logging
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final, Literal

import attrs
import trio

from gpustack.http1.address import AddressPair, Peer, peer_of
from gpustack.http1.body import ReadBuffer
from gpustack.http1.exchange import ClientDisconnect, Exchange
from gpustack.http1.fields import Framing, fault_body, status_line
from gpustack.http1.head import HeadError, RequestHead, parse_request_head
from gpustack.http1.reactor import StreamTimeout
from gpustack.http1.stream import Stream
from gpustack.logs import REQUEST_ID

if TYPE_CHECKING:
    from gpustack.http1.server import HttpServer

log = logging.getLogger(__name__)

_BURST: Final = 1 << 20
_HALF_CLOSED: Final = 0.5
"""Seconds in which a client that has closed its sending half still gets its answer."""


class ConnectionPhase(Enum):
    IDLE = "idle"
    HEAD = "reading a head"
    SERVING = "serving"
    CLOSING = "closing"


class Connection:
    """Serves the requests of one client, one at a time, until either side closes.

    A client that closes its sending half has left, or only has no further request: the wire does not show which. So it
    still gets an answer that is ready within half a second; then the exchange is cancelled, and its upstream closed.
    When the whole connection is known to be closed, the exchange is cancelled at once.
    """

    __slots__ = (
        "_body_until",
        "_burst",
        "_owner",
        "_scope",
        "abandoned",
        "asked",
        "exchange",
        "lingers",
        "peer",
        "phase",
        "read_buffer",
        "server",
        "stream",
    )

    def __init__(self, server: HttpServer, stream: Stream, peer: Peer) -> None:
        self.server = server
        self.stream = stream
        self.peer = peer
        self.read_buffer = ReadBuffer(stream)
        self.phase = ConnectionPhase.IDLE
        self.exchange: Exchange | None = None
        self.abandoned = False
        self.lingers = False
        self.asked = False
        """Whether a request has ever come. Until then one is expected."""
        self._body_until = inf
        self._burst = 0
        self._owner: int | Literal["unasked"] | None = "unasked"
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        doing = repr(self.exchange) if self.exchange is not None else self.phase.value
        return f"<Connection of {self.peer.host}, {doing}>"

    @property
    def local(self) -> Peer:
        return peer_of(self.stream.sock.getsockname())

    @property
    def stopping(self) -> bool:
        return self.server.stopping

    async def owner(self) -> int | None:
        """The user id of the program at the other end, if it is on this machine and the kernel knows it; asked once."""
        if self._owner == "unasked":
            try:
                ends = AddressPair.of(attrs.astuple(self.peer), attrs.astuple(self.local))
            except (ValueError, OSError):  # a local socket; a client that has gone
                self._owner = None
            else:
                self._owner = await self.server.find_owner(ends)
        return self._owner

    def date_line(self) -> bytes:
        return self.server.date_line()

    def body_deadline(self) -> float:
        """Until when the next piece of the body must come."""
        return min(self.server.reactor.deadline(self.server.limits.body_timeout), self._body_until)

    async def run(self) -> None:
        """Serve until the connection ends. Raises nothing but Cancelled: a fault ends this connection and no other."""
        try:
            with self._scope:
                await self._run()
        except Exception:  # the boundary of all handlers: one must not end the server
            log.exception("A connection's handler failed: peer=%s", self.peer.host)
        finally:
            self._close()

    def cut(self) -> None:
        """Cancel the exchange under way, if there is one."""
        if self.phase is ConnectionPhase.SERVING:
            self.abandoned = True
            self._scope.cancel()

    def hang_up(self) -> None:
        """The client has closed its sending half, or all."""
        if self.stream.gone:
            self.cut()
        elif self.phase is ConnectionPhase.SERVING:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + _HALF_CLOSED)

    def close_if_idle(self) -> bool:
        """Closes a connection on which nothing has been asked."""
        if self.phase is not ConnectionPhase.IDLE or self.stream.readable:
            return False
        self.stream.close()
        return True

    async def write(self, data: bytes) -> None:
        """Sends to the client. Raises ClientDisconnect, also when the client takes nothing for too long."""
        try:
            await self.stream.send_all(data, self.server.limits.write_timeout)
        except (StreamTimeout, OSError) as error:
            self.abandoned = True
            raise ClientDisconnect from error
        self._burst += len(data)
        if self._burst >= _BURST:  # a client that reads as fast as we send must not keep other tasks waiting
            self._burst = 0
            await trio.lowlevel.checkpoint()

    async def _run(self) -> None:
        self.stream.on_hangup = self.hang_up
        limits, reactor = self.server.limits, self.server.reactor
        try:
            await self.stream.handshake(reactor.deadline(limits.head_timeout))
            patience = limits.head_timeout
            while await self._serve_next(patience):
                patience = limits.idle_timeout
            self._set(ConnectionPhase.CLOSING)
            if self.lingers or self.read_buffer.data or (self.stream.readable and not self.stream.ended):
                await self._linger()
        except (ClientDisconnect, StreamTimeout, OSError):
            self.abandoned = True

    def _set(self, phase: ConnectionPhase) -> None:
        """Change the phase; the server keeps a list of idle connections, the longest idle first."""
        self.phase = phase
        if phase is ConnectionPhase.IDLE:
            self.server.idle[self] = None
        else:
            self.server.idle.pop(self, None)

    async def _serve_next(self, patience: float) -> bool:
        """Read a request and have it answered. Returns whether another request may follow."""
        try:
            head = await self._next_head(patience)
        except HeadError as error:
            await self._refuse(error.status, error.sentence)
            return False
        if head is None:
            return False
        server = self.server
        if self.stream.gone:
            server.on_left(head, self.peer)
            return False
        exchange = self._begin(head)
        server.in_flight += 1
        try:
            await server.handler_of(exchange)(exchange)
        except ClientDisconnect:
            raise
        except Exception as error:  # whatever a handler raises is answered
            if exchange.response_started:
                log.exception("A handler failed inside its response: path=%s", head.path)
            elif not self.abandoned:
                await server.on_error(exchange, error)
        finally:
            server.in_flight -= 1
        if not await self._settle(exchange):
            return False
        self.exchange = None
        return not server.stopping

    def _begin(self, head: RequestHead) -> Exchange:
        server = self.server
        self.asked = True
        self.phase = ConnectionPhase.SERVING  # it was HEAD, so the connection is not in the list of idle ones
        if self.stream.ended:
            self.hang_up()
        if head.framing is not Framing.NONE:
            self._body_until = server.reactor.deadline(server.limits.whole_body_timeout)
        self.exchange = exchange = Exchange(self, head)
        if server.request_id is not None:
            exchange.name = server.request_id(head)
            REQUEST_ID.set(exchange.name)
        return exchange

    async def _next_head(self, patience: float) -> RequestHead | None:
        """The next request's head, or None when the client has left or sends no further request."""
        read_buffer, stream, reactor, limits = (
            self.read_buffer,
            self.stream,
            self.server.reactor,
            self.server.limits,
        )
        buffer, read_buffer.data = read_buffer.data, b""
        self._set(ConnectionPhase.HEAD if buffer else ConnectionPhase.IDLE)
        until = reactor.deadline(limits.head_timeout if buffer else patience)
        data = buffer
        while True:
            # A piece without a line end cannot complete a head; but the first byte may show that it is none.
            if buffer and (b"\n" in data or len(buffer) == len(data) or len(buffer) > limits.head_bytes):
                head = parse_request_head(buffer, limits.head_bytes)
                if isinstance(head, RequestHead):
                    read_buffer.data = buffer[head.size :]
                    return head
            try:
                data = await stream.recv(until)
            except StreamTimeout:
                if self.phase is ConnectionPhase.IDLE:
                    return None
                raise HeadError(408, "The request's head did not come in time.") from None
            if not data:
                return None
            if self.phase is ConnectionPhase.IDLE:
                self._set(ConnectionPhase.HEAD)
                until = reactor.deadline(limits.head_timeout)
            buffer = buffer + data if buffer else data

    async def _settle(self, exchange: Exchange) -> bool:
        """After the handler: whether the connection can serve another request."""
        if not exchange.response_complete:
            if exchange.status == 101:
                return False
            if not exchange.response_started:
                log.error("A handler returned without an answer: path=%s", exchange.head.path)
                await self._refuse(500, "The request was not answered.")
            return False
        if not exchange.keep:
            self.lingers = not exchange.body.done
            return False
        while not exchange.body.done:  # all of it is here already, or ``keep`` would be false
            await exchange.body.next()
        return True

    async def _refuse(self, status: int, sentence: str) -> None:
        """Answers outside any exchange, and closes."""
        body = fault_body(status, sentence)
        self.lingers = True
        await self.write(
            b"%b%b%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status_line(status), self.date_line(), self.server.request_id_line(), len(body), body)
        )

    async def _linger(self) -> None:
        """Reads and drops what the client still sends: with unread bytes the kernel would close with a reset."""
        limits = self.server.limits
        self.read_buffer.data = b""
        self.stream.shutdown_write()
        until = self.server.reactor.deadline(limits.linger_timeout)
        left = limits.linger_bytes
        while left > 0 and (data := await self.stream.recv(until)):
            left -= len(data)

    def _close(self) -> None:
        self.abandoned = True
        exchange = self.exchange
        if exchange is not None and exchange.ends_with_connection and not exchange.response_complete:
            self.stream.abort()
        self.stream.close()
        self.server.forget(self)

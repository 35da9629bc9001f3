"""The HTTP/1.1 server: accepts connections from its listeners and gives each request to a handler."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from itertools import islice
from math import nan
from typing import Final

import attrs
import trio

from gpustack.errors import PayloadTooLarge
from gpustack.http1.address import AddressPair, Peer, peer_of
from gpustack.http1.connection import Connection, ConnectionPhase
from gpustack.http1.exchange import BodyError, BodyTimeout, Exchange
from gpustack.http1.fields import HEAD_LIMIT, REQUEST_ID_FIELD, fault_body, status_line
from gpustack.http1.head import RequestHead
from gpustack.http1.reactor import Reactor, new_reactor
from gpustack.http1.stream import is_elsewhere, keep_alive, new_stream

log = logging.getLogger(__name__)

Handler = Callable[[Exchange], Awaitable[None]]
OnError = Callable[[Exchange, Exception], Awaitable[None]]
Claims = Callable[[RequestHead, Peer], bool]
FindOwner = Callable[[AddressPair], Awaitable[int | None]]
Tls = ssl.SSLContext | Callable[[], ssl.SSLContext] | None

_ACCEPTS_AT_ONCE: Final = 64
_LOOKED_AT: Final = 64
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ANSWERS: Final = ((PayloadTooLarge, 413), (BodyTimeout, 408), (BodyError, 400))


@attrs.frozen(kw_only=True)
class ServerLimits:
    """Times are never cut short and at most two ticks of the reactor (about two seconds) late."""

    head_bytes: int = HEAD_LIMIT
    head_timeout: float = 15.0
    """From the first byte of a request (on a new connection: from its opening) to the end of its head."""
    idle_timeout: float = 75.0
    """Between two requests of a connection."""
    body_timeout: float = 60.0
    """Between two pieces of a request body."""
    whole_body_timeout: float = 900.0
    """For a request body from its head to its end, however steadily it comes: 64 MiB at half a megabit a second."""
    write_timeout: float = 60.0
    """Without the client taking a single byte of what is being sent to it."""
    connections: int = 16384
    connections_per_address: int | None = 4096
    linger_timeout: float = 5.0
    """After an early answer: how long what the client still sends is read and dropped, so that it gets
    the answer and not a reset."""
    linger_bytes: int = 64 * 1024 * 1024


async def find_nobody(ends: AddressPair) -> int | None:
    """For servers that do not ask which user's program is at the other end."""
    return None


async def answer_error(exchange: Exchange, error: Exception) -> None:
    """What a client is told when a handler raises before its response has begun."""
    status = next((status for kind, status in _ANSWERS if isinstance(error, kind)), 500)
    if status == 500:
        log.error("A handler failed: path=%s", exchange.head.path, exc_info=error)
    sentence = str(error) if status < 500 else "The server failed to answer this request."
    await exchange.respond(status, [(b"content-type", b"application/json")], fault_body(status, sentence))


class HttpServer:
    """A service: serves until cancelled. Cancelling cuts every connection at once.

    To stop gently call ``stop_accepting``, wait for ``drained`` as long as there is time, then cancel.
    Each request goes to ``handler`` if ``claims(head, peer)`` holds, else to ``hand_off`` (one connection
    may mix both). ``tls`` may be a callable that gives the context for the next connection. ``find_owner``
    tells the user id of the program at the other end of a connection, where a handler asks for it. ``on_left`` is told
    of requests that no handler has seen, because who sent them was gone before. ``request_id`` names a request
    (``None``: one whose head could not be read), in letters that a header may have, for the ``X-Request-Id`` of every
    answer and for the log.
    """

    def __init__(
        self,
        name: str,
        listeners: Sequence[socket.socket],
        *,
        handler: Handler,
        claims: Claims | None = None,
        hand_off: Handler | None = None,
        limits: ServerLimits | None = None,
        tls: Tls = None,
        reactor: Reactor | None = None,
        on_error: OnError = answer_error,
        find_owner: FindOwner = find_nobody,
        on_left: Callable[[RequestHead, Peer], None] = lambda head, peer: None,
        request_id: Callable[[RequestHead | None], bytes] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.find_owner = find_owner
        self.on_left = on_left
        self.limits = limits or ServerLimits()
        self.reactor = reactor or new_reactor()
        self.on_error = on_error
        self.request_id = request_id
        self.in_flight = 0
        self.stopping = False
        self.connections: set[Connection] = set()
        self.idle: dict[Connection, None] = {}
        """Those without a request, the longest idle first."""
        self._owns_reactor = reactor is None
        self._listeners = list(listeners)
        self._handler = handler
        self._claims = claims
        self._hand_off = hand_off
        self._tls = tls
        self._clock = clock
        self._by_address: Counter[str] = Counter()
        self._accepting = trio.CancelScope()
        self._keep_listening = False
        self._changed = trio.Event()
        self._date_at = nan
        self._date = b""

    def __repr__(self) -> str:
        phases = Counter(connection.phase for connection in self.connections)
        counts = ", ".join(f"{phases[phase]} {phase.value}" for phase in ConnectionPhase if phases[phase])
        state = "draining" if self.stopping else "serving"
        return (
            f"<HttpServer {self.name} {state}, {len(self.connections)} connections{counts and ': '}{counts}>"
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled."""
        async with trio.open_nursery() as outer:
            if self._owns_reactor:
                await outer.start(self.reactor.run)
            try:
                async with trio.open_nursery() as connections:
                    with self._accepting:
                        async with trio.open_nursery() as loops:
                            for listener in self._listeners:
                                listener.setblocking(False)
                                loops.start_soon(self._accept, listener, connections)
                            task_status.started()
                    self._close_listeners()
                    await trio.sleep_forever()
            finally:
                self._close_listeners()
                outer.cancel_scope.cancel()

    def stop_accepting(self, *, keep_listening: bool = False) -> None:
        """Takes no new connection, closes idle ones; requests under way end with "connection: close".

        The listening sockets are closed, unless ``keep_listening``: then they stay open for whoever
        inherits them, and new clients wait in their queue. Connections that nothing came on yet stay too:
        wait for ``newcomers_heard`` as long as there is time, then call ``close_idle``.
        """
        self._keep_listening = keep_listening
        self.stopping = True
        self._accepting.cancel()
        self.close_idle(newcomers=not keep_listening)

    async def newcomers_heard(self) -> None:
        """Returns when every connection has had a request, or has closed."""
        while not all(connection.asked for connection in self.connections):  # noqa: ASYNC110  over in an instant
            await trio.sleep(0.005)

    def close_idle(self, *, newcomers: bool = True) -> None:
        """Closes connections without a request now; without ``newcomers`` only those that once had one."""
        for connection in list(self.connections):
            if newcomers or connection.asked:
                connection.close_if_idle()

    async def drained(self) -> None:
        """Returns when no connection is left; call it after ``stop_accepting``."""
        while self.connections:
            await self._changed.wait()

    # --- for connections ---

    def handler_of(self, exchange: Exchange) -> Handler:
        if self._hand_off is None or self._claims is None or self._claims(exchange.head, exchange.peer):
            return self._handler
        return self._hand_off

    def date_line(self) -> bytes:
        """The Date and Server headers, made once a tick."""
        now = self.reactor.now
        if now != self._date_at:
            self._date_at = now
            self._date = b"date: %b\r\nserver: gpustack\r\n" % formatdate(self._clock(), usegmt=True).encode()
        return self._date

    def request_id_line(self) -> bytes:
        """For an answer to a request that could not be read."""
        return b"" if self.request_id is None else b"%b: %b\r\n" % (REQUEST_ID_FIELD, self.request_id(None))

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.idle.pop(connection, None)
        host = connection.peer.host
        self._by_address[host] -= 1
        if not self._by_address[host]:
            del self._by_address[host]
        self._changed.set()
        self._changed = trio.Event()

    # --- accepting ---

    async def _accept(self, listener: socket.socket, connections: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(_ACCEPTS_AT_ONCE):
                try:
                    sock, address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _OUT_OF_RESOURCES:
                        log.warning("No more connections can be accepted: %s.", error.strerror)
                        self._evict_idle()
                        await trio.sleep(0.1)
                        break
                    continue  # that client has left already
                connection = self._admit(sock, peer_of(address))
                if connection is not None:
                    connections.start_soon(connection.run)

    def _admit(self, sock: socket.socket, peer: Peer) -> Connection | None:
        limits = self.limits
        per_address = limits.connections_per_address
        if per_address is not None and self._by_address[peer.host] >= per_address:
            self._turn_away(sock, 429, "Too many connections come from this address.")
            return None
        if len(self.connections) >= limits.connections and not self._evict_idle():
            self._turn_away(sock, 503, "The server has no connection left; try again.")
            return None
        try:
            if peer.host != "unix" and is_elsewhere(peer.host):
                keep_alive(sock)
            stream = new_stream(self.reactor, self._secured(sock))
        except OSError:  # the client has left already
            sock.close()
            return None
        connection = Connection(self, stream, peer)
        self.connections.add(connection)
        self._by_address[peer.host] += 1
        return connection

    def _secured(self, sock: socket.socket) -> socket.socket:
        tls = self._tls
        if tls is None:
            return sock
        context = tls if isinstance(tls, ssl.SSLContext) else tls()
        sock.setblocking(False)
        return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _turn_away(self, sock: socket.socket, status: int, sentence: str) -> None:
        """One attempt to send an answer that says why, then the connection is closed: this must be cheap."""
        body = fault_body(status, sentence)
        with sock:
            if self._tls is None:
                sock.setblocking(False)
                try:
                    sock.send(
                        b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\nretry-after: 5\r\n"
                        b"connection: close\r\n\r\n%b"
                        % (status_line(status), self.request_id_line(), len(body), body)
                    )
                    sock.shutdown(socket.SHUT_WR)
                except OSError:
                    log.debug("A client that was turned away did not wait.")

    def _evict_idle(self) -> bool:
        """Closes the connection that has been idle for longest, in favour of a new one. Returns whether there was one.

        Few are tried: those that cannot be closed have just received something.
        """
        for connection in list(islice(self.idle, _LOOKED_AT)):
            del self.idle[connection]
            if connection.close_if_idle():
                self.connections.discard(connection)
                return True
        return False

    def _close_listeners(self) -> None:
        if not self._keep_listening:
            for listener in self._listeners:
                listener.close()

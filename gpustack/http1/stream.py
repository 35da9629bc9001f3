"""A non-blocking socket as a stream of bytes. A send is tried at once and waits only when the socket is full."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Final

from trio.lowlevel import checkpoint

from gpustack.http1.reactor import IN, OUT, Reactor, Waiter, peek_end

READ: Final = 64 * 1024
_IDLE: Final = 15
"""Seconds of silence after which the kernel sends the first keep-alive probe."""
_EVERY: Final = 5
_PROBES: Final = 3
_UNACKNOWLEDGED: Final = 30_000
"""Milliseconds after which a connection ends if the other machine does not acknowledge its bytes or probes, or has no
room for its bytes. The kernel's default is about a quarter of an hour (``tcp_retries2``)."""
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)

_OPTIONS: Final = tuple(
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", _IDLE), ("TCP_KEEPINTVL", _EVERY), ("TCP_KEEPCNT", _PROBES))
    if hasattr(socket, name)  # macOS has not all of them
)

Bytes = bytes | memoryview


class Stream:
    """One task may receive while another sends. Closing it raises OSError in both.

    ``ended`` tells that the other side has closed its sending half, ``gone`` that the whole connection is closed;
    ``on_hangup`` is called when either is noticed.
    """

    __slots__ = ("ended", "fd", "gone", "on_hangup", "reactor", "readable", "reader", "sock", "writer")

    def __init__(self, reactor: Reactor, sock: socket.socket) -> None:
        self.reactor = reactor
        self.sock = sock
        self.fd = sock.fileno()
        self.readable = False
        self.ended = False
        self.gone = False
        self.reader = Waiter()
        self.writer = Waiter()
        self.on_hangup: Callable[[], None] | None = None
        reactor.attach(self)

    def __repr__(self) -> str:
        waits = [word for word, waiter in (("read", self.reader), ("write", self.writer)) if waiter.task]
        state = "closed" if self.fd < 0 else f"waiting to {' and '.join(waits)}" if waits else "open"
        return f"<{type(self).__name__} fd {self.fd}, {state}>"

    @property
    def tls(self) -> bool:
        return False

    async def handshake(self, until: float = inf) -> None:
        """Makes the stream ready for use. Raises StreamTimeout, OSError."""

    async def recv(self, until: float = inf) -> bytes:
        """The next bytes, ``b""`` at the end. Always a checkpoint. Raises StreamTimeout, OSError."""
        while True:
            if self.readable:
                await checkpoint()
            else:
                await self.reactor.park(self, self.reader, IN, until)
            try:
                data = self.sock.recv(READ)
            except BlockingIOError:
                self.readable = False
                continue
            # a short read proves that the socket is drained: the next one waits and does not ask it for nothing
            if len(data) < READ and not self.ended:
                self.readable = False
            return data

    async def send_all(self, data: Bytes, stall: float = inf) -> None:
        """Sends everything. A checkpoint only when the socket's buffer is full, which is the backpressure.

        Raises StreamTimeout when nothing could be sent for ``stall`` seconds, OSError.
        """
        sent = self._send(data)
        if sent != len(data):
            await self._send_rest(memoryview(data)[sent:], stall)

    async def send_until_answered(self, data: Bytes, stall: float = inf) -> Bytes:
        """As send_all, but stops when the other side has sent something. Returns what is unsent."""
        if not self.readable and (sent := self._send(data)):
            if sent == len(data):
                return b""
            data = memoryview(data)[sent:]
        view = memoryview(data)
        while view:
            if self.readable and self._has_input():
                return view
            sent = self._send(view)
            view = view[sent:]
            if view and not sent:
                await self.reactor.park(self, self.writer, IN | OUT, self.reactor.deadline(stall))
        return b""

    def close(self) -> None:
        """Closes at once; OSError is raised in whoever waits on the stream. May be called again."""
        if self.fd < 0:
            return
        self.reactor.detach(self)
        self.fd = -1
        self.reactor.wake(self)
        self.sock.close()

    def abort(self) -> None:
        """Closes with a reset, so that the other side does not take what it got for the whole."""
        if self.fd >= 0 and self.sock.family != socket.AF_UNIX:
            with suppress(OSError):  # already disconnected, on some systems
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def shutdown_write(self) -> None:
        """Says that nothing more will be sent. Raises OSError."""
        self.sock.shutdown(socket.SHUT_WR)

    def is_untouched(self) -> bool:
        """Whether nothing unread is known to have come: neither bytes nor the end of the stream."""
        if self.reactor.watches and not self.readable:
            return True
        try:
            return not self._has_input()
        except OSError:
            return False

    def peer_has_left(self) -> bool:
        """Whether the other side is known to have closed; costs a system call."""
        return self.ended or peek_end(self.sock)

    def _has_input(self) -> bool:
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self.readable = False
            return False
        return True

    def _send(self, data: Bytes) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    async def _send_rest(self, view: memoryview, stall: float) -> None:
        while view:
            await self.reactor.park(self, self.writer, OUT, self.reactor.deadline(stall))
            view = view[self._send(view) :]


class TLSStream(Stream):
    """The same over an ``ssl.SSLSocket`` that does not block.

    Reads come record by record, so a short one does not prove that the socket is drained, and a send takes one record
    at a time: each goes on until the library wants the socket.
    """

    __slots__ = ("_secured",)
    sock: ssl.SSLSocket

    def __init__(self, reactor: Reactor, sock: ssl.SSLSocket) -> None:
        super().__init__(reactor, sock)

    @property
    def tls(self) -> bool:
        return True

    async def handshake(self, until: float = inf) -> None:
        while True:
            try:
                self.sock.do_handshake()
            except ssl.SSLWantReadError:
                await self.reactor.park(self, self.reader, IN, until)
            except ssl.SSLWantWriteError:
                await self.reactor.park(self, self.reader, OUT, until)
            else:
                self.readable = False
                return
            if self.ended:
                raise ConnectionResetError(errno.ECONNRESET, "closed during the TLS handshake")

    async def recv(self, until: float = inf) -> bytes:
        await checkpoint()
        while True:
            wants = IN
            try:
                return self.sock.recv(READ)
            except ssl.SSLWantReadError:
                self.readable = False
                if self.ended:
                    return b""
            except ssl.SSLWantWriteError:
                wants = OUT
            except ssl.SSLEOFError:
                return b""
            await self.reactor.park(self, self.reader, wants, until)

    async def send_all(self, data: Bytes, stall: float = inf) -> None:
        view = memoryview(data)
        while view:
            sent = self._send(view)
            if not sent:
                await self.reactor.park(self, self.writer, OUT, self.reactor.deadline(stall))
            view = view[sent:]

    async def send_until_answered(self, data: Bytes, stall: float = inf) -> Bytes:
        # bytes that have come may be for the library (session tickets): they prove no answer
        await self.send_all(data, stall)
        return b""

    def is_untouched(self) -> bool:
        # what has come may be for the library
        return not self.peer_has_left()

    def shutdown_write(self) -> None:
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def _send(self, data: Bytes) -> int:
        try:
            return self.sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0


def new_stream(reactor: Reactor, sock: socket.socket) -> Stream:
    """A stream over a connected socket, which is made non-blocking and belongs to the stream from now on."""
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return TLSStream(reactor, sock) if isinstance(sock, ssl.SSLSocket) else Stream(reactor, sock)


def keep_alive(sock: socket.socket) -> None:
    """Have the kernel probe an idle connection, and end it (ETIMEDOUT) if the other machine is silent for about half a
    minute: a cable was pulled, or the machine lost its power.

    A machine that is there keeps the connection even if its program does not answer: that is for the deadlines of
    whoever waits. Raises OSError.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _OPTIONS:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def end_unacknowledged(sock: socket.socket, *, yes: bool) -> None:
    """Whether the connection also ends when what was sent is not acknowledged for half a minute.

    Not while a peer may leave bytes unread for longer: to the kernel that looks like a machine that is gone (tcp(7)).
    Raises OSError.
    """
    if _USER_TIMEOUT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, _UNACKNOWLEDGED if yes else 0)


def is_elsewhere(host: str) -> bool:
    """Whether the host is another machine, which may vanish: it is no address of the loopback."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"

"""A non-blocking socket as a stream of bytes: sends are tried at once and awaited only when they must be."""

from __future__ import annotations

import errno
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

Bytes = bytes | memoryview


class Stream:
    """One task may receive while another sends. Closing wakes both with an OSError.

    ``ended`` says that the other side has closed its half, ``gone`` that the whole connection is no more;
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
        waits = [word for word, lane in (("read", self.reader), ("write", self.writer)) if lane.task]
        state = "closed" if self.fd < 0 else f"waiting to {' and '.join(waits)}" if waits else "open"
        return f"<{type(self).__name__} fd {self.fd}, {state}>"

    @property
    def tls(self) -> bool:
        return False

    async def handshake(self, until: float = inf) -> None:
        """Makes the stream ready for use. Raises Expired, OSError."""

    async def recv(self, until: float = inf) -> bytes:
        """The next bytes, ``b""`` at the end. Always a checkpoint. Raises Expired, OSError."""
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
            # a short read proves the socket drained: the next one waits instead of meeting EAGAIN
            if len(data) < READ and not self.ended:
                self.readable = False
            return data

    async def send_all(self, data: Bytes, stall: float = inf) -> None:
        """Sends everything. A checkpoint only when the socket's buffer is full, which is the backpressure.

        Raises Expired when nothing could be sent for ``stall`` seconds, OSError.
        """
        sent = self._send(data)
        if sent != len(data):
            await self._send_rest(memoryview(data)[sent:], stall)

    async def send_until_answered(self, data: Bytes, stall: float = inf) -> Bytes:
        """As send_all, but gives up when the other side has sent something; returns what is unsent."""
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
        """Closes at once; whoever waits on the stream gets an OSError. May be called again."""
        if self.fd < 0:
            return
        self.reactor.detach(self)
        self.fd = -1
        self.reactor.wake(self)
        self.sock.close()

    def abort(self) -> None:
        """Closes with a reset, so that the other side cannot take what it got for the whole."""
        if self.fd >= 0 and self.sock.family != socket.AF_UNIX:
            with suppress(OSError):  # already disconnected, on some systems
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def shutdown_write(self) -> None:
        """Says that nothing more will be sent. Raises OSError."""
        self.sock.shutdown(socket.SHUT_WR)

    def is_untouched(self) -> bool:
        """Whether nothing is known to have come that nobody has read, be it bytes or the end."""
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

    A record makes "a short read" meaningless and a send takes one record at a time, so each goes on
    until the library says that it wants the socket.
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
        # bytes that have come may be the library's own (session tickets): they prove no answer
        await self.send_all(data, stall)
        return b""

    def is_untouched(self) -> bool:
        # what has come may be the library's own
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

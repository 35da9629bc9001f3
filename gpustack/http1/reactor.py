"""Wakes the tasks that wait on streams: when a socket is ready, a time has passed or the peer has left."""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final, Literal, Protocol

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

if TYPE_CHECKING:
    from gpustack.http1.stream import Stream

IN: Final = 1  # the values of EPOLLIN and EPOLLOUT
OUT: Final = 4

ReactorKind = Literal["epoll", "portable"]


class StreamTimeout(Exception):
    """A wait on a stream took longer than it was given."""


class Waiter:
    """Who waits on one direction of a stream (one task at most), for what and until when."""

    __slots__ = ("error", "task", "until", "wants")

    def __init__(self) -> None:
        self.task: Task | None = None
        self.wants = 0
        self.until = inf
        self.error: Exception | None = None

    def abort(self, _: RaiseCancelT) -> Abort:
        self.task = None
        return Abort.SUCCEEDED


class Reactor(Protocol):
    """What streams need of a reactor. A stream is attached for as long as it is open.

    ``now`` is the time of the last tick: deadlines need no better, and reading it costs nothing.
    """

    name: str
    now: float
    running: bool
    watches: bool
    """Whether every stream is watched all the time, also when nobody waits on it."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; then every stream still open is closed and its waiters are woken."""

    def deadline(self, seconds: float) -> float:
        """The instant in so many seconds, for ``park``: it ends a wait never early and at most two ticks late."""

    def attach(self, stream: Stream) -> None: ...

    def detach(self, stream: Stream) -> None: ...

    async def park(self, stream: Stream, waiter: Waiter, wants: int, until: float) -> None:
        """Waits until the socket is ready for ``wants``, or seems to be. Raises StreamTimeout."""

    def wake(self, stream: Stream) -> None:
        """Wakes whoever is parked on the stream, to try again."""


def new_reactor(
    kind: ReactorKind | None = None,
    *,
    tick: float | None = None,
    clock: Callable[[], float] = trio.current_time,
) -> Reactor:
    """The best reactor for this platform, or the kind asked for."""
    if kind is None:
        kind = "epoll" if sys.platform == "linux" else "portable"
    if kind == "epoll":
        return EpollReactor(tick=1.0 if tick is None else tick, clock=clock)
    return PortableReactor(tick=0.5 if tick is None else tick, clock=clock)


class _TickingReactor:
    """What both reactors share: the streams, and the tick that ends waits that took too long."""

    name = "reactor"

    def __init__(self, *, tick: float, clock: Callable[[], float]) -> None:
        self.tick = tick
        self.now = -inf
        self.running = False
        self.streams: dict[int, Stream] = {}
        self._clock = clock

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<{type(self).__name__} {state}, {len(self.streams)} streams>"

    def deadline(self, seconds: float) -> float:
        return self.now + self.tick + seconds

    async def _ticks(self) -> None:
        while True:
            self.now = now = self._clock()
            for stream in list(self.streams.values()):
                for waiter in (stream.reader, stream.writer):
                    if waiter.task is not None and waiter.until < now:
                        waiter.error = StreamTimeout()
                        self._resume(stream, waiter)
                self._look(stream)
            await trio.sleep(self.tick)

    def _resume(self, stream: Stream, waiter: Waiter) -> None:
        raise NotImplementedError

    def _look(self, stream: Stream) -> None:
        """Look at a stream once a tick."""

    def _close_all(self) -> None:
        self.running = False
        for stream in list(self.streams.values()):
            stream.close()


if sys.platform == "linux":
    _RESET: Final = select.EPOLLHUP | select.EPOLLERR
    _GONE: Final = select.EPOLLRDHUP | _RESET
    _EVENTS: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

    class EpollReactor(_TickingReactor):
        """Every socket is registered once, edge-triggered, in one epoll that is itself awaited through Trio.

        Trio's own ``wait_readable`` re-arms its epoll for each wait; here a wait is a parked task.
        """

        watches = True

        def __init__(self, *, tick: float = 1.0, clock: Callable[[], float] = trio.current_time) -> None:
            super().__init__(tick=tick, clock=clock)
            self._epoll = select.epoll()

        async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            self.now = self._clock()
            self.running = True
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ticks)
                    task_status.started()
                    await self._events()
            finally:
                self._close_all()
                self._epoll.close()

        async def _events(self) -> None:
            streams, poll, fd = self.streams, self._epoll.poll, self._epoll.fileno()
            while True:
                await trio.lowlevel.wait_readable(fd)
                for fileno, mask in poll(0, 512):
                    stream = streams.get(fileno)
                    if stream is None:
                        continue
                    gone = mask & _GONE
                    if mask & IN:
                        stream.readable = True
                    if gone:
                        stream.readable = stream.ended = True
                        stream.gone = bool(mask & _RESET)
                    for waiter in (stream.reader, stream.writer):
                        if waiter.task is not None and (mask & waiter.wants or gone):
                            self._resume(stream, waiter)
                    if gone and stream.on_hangup is not None:
                        stream.on_hangup()

        def attach(self, stream: Stream) -> None:
            self.streams[stream.fd] = stream
            self._epoll.register(stream.fd, _EVENTS)

        def detach(self, stream: Stream) -> None:
            if self.streams.pop(stream.fd, None) is not None and self.running:
                self._epoll.unregister(stream.fd)

        async def park(self, stream: Stream, waiter: Waiter, wants: int, until: float) -> None:
            waiter.wants, waiter.until, waiter.task = wants, until, current_task()
            await wait_task_rescheduled(waiter.abort)
            if waiter.error is not None:
                error, waiter.error = waiter.error, None
                raise error

        def wake(self, stream: Stream) -> None:
            for waiter in (stream.reader, stream.writer):
                self._resume(stream, waiter)

        def _resume(self, stream: Stream, waiter: Waiter) -> None:
            task = waiter.task
            if task is not None:
                waiter.task = None
                reschedule(task)


class PortableReactor(_TickingReactor):
    """Waits with Trio's ``wait_readable`` and ``wait_writable``; slower, but runs wherever Trio runs.

    A peer that leaves while nobody reads is noticed once a tick, unless bytes that nobody has read
    lie before the end of its stream: then only when they are read.
    """

    watches = False

    def __init__(self, *, tick: float = 0.5, clock: Callable[[], float] = trio.current_time) -> None:
        super().__init__(tick=tick, clock=clock)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.now = self._clock()
        self.running = True
        task_status.started()
        try:
            await self._ticks()
        finally:
            self._close_all()

    def attach(self, stream: Stream) -> None:
        self.streams[stream.fd] = stream

    def detach(self, stream: Stream) -> None:
        self.streams.pop(stream.fd, None)

    async def park(self, stream: Stream, waiter: Waiter, wants: int, until: float) -> None:
        waiter.wants, waiter.until, waiter.task = wants, until, current_task()
        try:
            # raised on purpose by notify_closing: the caller tries again
            with suppress(trio.ClosedResourceError):
                if wants == IN:
                    await trio.lowlevel.wait_readable(stream.sock)
                else:
                    await trio.lowlevel.wait_writable(stream.sock)
        finally:
            waiter.task = None
        if waiter.error is not None:
            error, waiter.error = waiter.error, None
            raise error

    def wake(self, stream: Stream) -> None:
        trio.lowlevel.notify_closing(stream.sock)

    def _resume(self, stream: Stream, waiter: Waiter) -> None:
        self.wake(stream)

    def _look(self, stream: Stream) -> None:
        if stream.on_hangup is None or stream.reader.task is not None or stream.ended or stream.fd < 0:
            return
        if stream.peer_has_left():
            stream.readable = stream.ended = True
            stream.on_hangup()


def peek_end(sock: socket.socket) -> bool:
    """Whether the other side has closed and all bytes before that have been read."""
    try:
        return socket.socket.recv(sock, 1, socket.MSG_PEEK) == b""
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True

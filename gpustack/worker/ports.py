"""Leases of this machine's ports: an engine holds one for as long as it runs."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from gpustack.errors import Unavailable
from gpustack.nursery.wake import Wake


@attrs.define(eq=False, repr=False)
class PortLeases:
    """The one owner of a range of ports, ``first`` to ``last`` inclusive, which ``option`` names."""

    first: int
    last: int
    option: str = "--service-port-range"
    _held: dict[int, str] = attrs.field(factory=dict)
    _expected: dict[int, str] = attrs.field(factory=dict)
    _inner: set[int] = attrs.field(factory=set)
    """Those held that only other members of a gang talk to: no request is forwarded to them."""
    _next: int = 0
    _freed: Wake = attrs.field(factory=Wake)

    @contextmanager
    def lease(self, holder: str, *, inner: bool = False) -> Iterator[int]:
        """A port that nobody holds and that can be bound on every address now; given back when the block is left.

        Raises ``Unavailable`` with the range in its sentence when none is left. Ports are taken in turn, so that one
        that was just given back is used again as late as possible. ``inner``: only other members of a gang talk to it.
        """
        with self._holding(self._free_port(), holder, inner) as port:
            yield port

    @contextmanager
    def keep(self, port: int, holder: str, *, inner: bool = False) -> Iterator[int]:
        """The port of an engine that already listens on it. Raises ``Unavailable`` when another holds it."""
        if port in self._held:
            raise Unavailable(f"Port {port} of {holder} is held by {self._held[port]}")
        self._expected.pop(port, None)
        with self._holding(port, holder, inner):
            yield port

    def expect(self, port: int, holder: str) -> None:
        """Reserve the port of an engine that a former daemon left: it may still be loading, and not listen yet."""
        self._expected[port] = holder

    def expect_no_more(self, holder: str) -> None:
        """End the reservation: the holder has taken its port, or never will."""
        for port in [port for port, expected in self._expected.items() if expected == holder]:
            del self._expected[port]
            self._freed.wake()

    async def freed(self, at_most: float) -> None:
        """Wait until a port was given back, ``at_most`` seconds: nobody tells when a program that is not ours ends."""
        await self._freed.wait(at_most)

    @property
    def held(self) -> frozenset[int]:
        """The ports leased now that serve requests: the only ones that may be forwarded to."""
        return frozenset(self._held.keys() - self._inner)

    @property
    def holders(self) -> dict[str, int]:
        """The port that serves requests of each holder, by the holder's name."""
        return {holder: port for port, holder in self._held.items() if port not in self._inner}

    @contextmanager
    def _holding(self, port: int, holder: str, inner: bool) -> Iterator[int]:
        self._held[port] = holder
        if inner:
            self._inner.add(port)
        try:
            yield port
        finally:
            self._held.pop(port, None)
            self._inner.discard(port)
            self._freed.wake()

    def _free_port(self) -> int:
        size = self.last - self.first + 1
        for step in range(size):
            port = self.first + (self._next + step) % size
            if port not in self._held and port not in self._expected and _can_bind(port):
                self._next = port - self.first + 1
                return port
        raise Unavailable(
            f"No port of {self.first}-{self.last} is free ({len(self._held)} held by engines here); "
            f"widen {self.option}"
        )

    def __repr__(self) -> str:
        return f"<PortLeases {self.first}-{self.last}: {len(self._held)} held>"


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it, connections of an engine that just ended (TIME_WAIT) would block the port for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True

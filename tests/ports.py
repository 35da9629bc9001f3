"""Ports for tests that must name one before it is bound.

Whoever can should bind port 0. The others get ports below those that the system gives to clients and to port 0,
one after the other, and each process of a parallel run from a part of its own: nobody takes one in between.
"""

import os
import socket
from contextlib import ExitStack

FIRST, END = 12_000, 32_000
"""Ports FIRST to END - 1, divided among the processes of a parallel run."""


def free_port() -> int:
    """A loopback port that nobody listens on; the next call gives another."""
    return _next_free(1)


def free_ports(count: int) -> list[int]:
    """As many loopback ports, one after the other."""
    first = _next_free(count)
    return list(range(first, first + count))


def free_range(size: int) -> str:
    """A range of ports as options spell it, "20000-20015"."""
    first = _next_free(size)
    return f"{first}-{first + size - 1}"


def _own_part() -> range:
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = (END - FIRST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return range(FIRST + process * size, FIRST + (process + 1) * size)


_position = os.getpid() * 61
"""Where the next look begins; runs beside each other without xdist begin at places of their own."""


def _next_free(size: int) -> int:
    global _position
    part = _own_part()
    for _ in part:
        first = part[_position % len(part)]
        wanted = range(first, first + size)
        if wanted.stop <= part.stop and _are_free(wanted):
            _position += size
            return first
        _position += 1
    raise AssertionError(f"no {size} free ports in a row in {part}")


def _are_free(ports: range) -> bool:
    with ExitStack() as held:
        for port in ports:
            probe = held.enter_context(socket.socket())
            # As servers do: what is only waiting for late packets of a connection is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True

"""Notices a peer that vanished without a word: a cable pulled, a machine without power."""

from __future__ import annotations

import socket
from typing import Final

_IDLE: Final = 15
"""Seconds of silence after which the other machine is asked whether it is there."""
_EVERY: Final = 5
_PROBES: Final = 3
_UNACKNOWLEDGED: Final = 30_000
"""Milliseconds after which a connection ends whose bytes, or probes, the other machine does not acknowledge, or for
whose bytes it has no room. The kernel's own patience is about a quarter of an hour (``tcp_retries2``)."""

_OPTIONS: Final = tuple(
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", _IDLE),
        ("TCP_KEEPINTVL", _EVERY),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED),
    )
    if hasattr(socket, name)  # macOS has not all of them
)


def keep_alive(sock: socket.socket) -> None:
    """Have the kernel end a TCP connection, with ETIMEDOUT, within about half a minute of its peer's vanishing.

    A peer that is there and does not answer keeps it: that is for the deadlines of whoever waits. Raises OSError.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _OPTIONS:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)

"""Notices a peer that vanished without a word: a cable pulled, a machine without power."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

_IDLE: Final = 15
"""Seconds of silence after which the other machine is asked whether it is there."""
_EVERY: Final = 5
_PROBES: Final = 3
_UNACKNOWLEDGED: Final = 30_000
"""Milliseconds after which a connection ends whose bytes, or probes, the other machine does not acknowledge, or for
whose bytes it has no room. The kernel's own patience is about a quarter of an hour (``tcp_retries2``)."""
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)

_OPTIONS: Final = tuple(
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", _IDLE), ("TCP_KEEPINTVL", _EVERY), ("TCP_KEEPCNT", _PROBES))
    if hasattr(socket, name)  # macOS has not all of them
)


def keep_alive(sock: socket.socket) -> None:
    """Have the kernel ask whether the other machine is there while nothing is said, and end the connection, with
    ETIMEDOUT, where it does not answer for about half a minute.

    A peer that is there and does not answer, or does not read, keeps it: that is for the deadlines of whoever waits.
    Raises OSError.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _OPTIONS:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def end_unacknowledged(sock: socket.socket, *, yes: bool) -> None:
    """Whether the connection also ends when what was sent is not acknowledged for half a minute.

    Not for what a peer may leave unread for longer: the kernel does not tell that from a machine that is gone (tcp(7)).
    Raises OSError.
    """
    if _USER_TIMEOUT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, _UNACKNOWLEDGED if yes else 0)


def is_elsewhere(host: str) -> bool:
    """Whether the host may vanish while we live: it is no address of the loopback."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"

"""Opens listening sockets, or tells in one sentence why one cannot be opened."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from gpustack.errors import GpustackError

_NO_SUCH_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


class ListenError(GpustackError):
    """A port cannot be listened on; the sentence names the option to change."""


def open_listeners(
    host: str | None, port: int, backlog: int = 1024, *, option: str = "--port", host_option: str = "--host"
) -> list[socket.socket]:
    """Listening sockets on every address that ``host`` stands for.

    ``None`` or "" is every address of IPv4 and, where there is one, IPv6; "::" is both in one socket; a name
    is all its addresses. With port 0 all get the same free port. Raises ListenError; then none is left open.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host, host_option):
            try:
                sock = _listener(family, address, port, backlog, both=host == "::")
            except OSError as error:
                if sockets and not host and error.errno in _NO_SUCH_FAMILY:
                    continue  # IPv4 is there, and this machine has no IPv6
                raise ListenError(_sentence(error, address, port, option, host_option)) from error
            sockets.append(sock)
            port = port or sock.getsockname()[1]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def listens_at(sockets: Sequence[socket.socket], host: str | None, *, host_option: str = "--host") -> bool:
    """Whether the sockets are those that ``open_listeners`` would open for ``host``, whatever their port."""
    wanted = {address for _, address in _addresses(host, host_option)}
    there = {str(sock.getsockname()[0]) for sock in sockets}
    return there == wanted or (not host and there < wanted)  # this machine may have no IPv6


def _addresses(host: str | None, host_option: str) -> list[tuple[int, str]]:
    if not host:
        any_address = [(int(socket.AF_INET), "0.0.0.0")]
        if socket.has_ipv6:
            any_address.append((int(socket.AF_INET6), "::"))
        return any_address
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(f"{host!r} is not an address of this machine: set {host_option} to one.") from error
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


def _listener(family: int, address: str, port: int, backlog: int, *, both: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with suppress(OSError):  # some systems have no such choice
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        sock.bind((address, port))
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _sentence(error: OSError, address: str, port: int, option: str, host_option: str) -> str:
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {port} is taken by another program on {address}: choose another with {option}."
        case errno.EACCES | errno.EPERM:
            return (
                f"Port {port} needs a privilege that this process lacks: choose one above 1023 with {option}, "
                "or grant CAP_NET_BIND_SERVICE."
            )
        case errno.EADDRNOTAVAIL:
            return f"{address} is not an address of this machine: set {host_option} to one."
        case _:
            return f"{where} cannot be listened on ({error.strerror}): see {option} and {host_option}."

"""The address by which other machines reach this one."""

from __future__ import annotations

import ipaddress
import socket

_ANYWHERE = ("192.0.2.1", "2001:db8::1")
"""Reserved for documentation: a route to them is the default route."""


def find_address(towards: str | None = None) -> str | None:
    """The local address from which packets to ``towards`` (host name or address) leave; ``None`` if there is none.

    Without ``towards``, or when it is this machine, the address of the default route, else the first one of an
    interface that is up. Sends nothing, but looks a host name up: call it in a thread.
    """
    if towards is not None:
        seen = _leaving(towards)
        if seen is not None and not _is_local(seen):
            return seen
    for target in _ANYWHERE:
        seen = _leaving(target)
        if seen is not None and not _is_local(seen):
            return seen
    return _of_interfaces()


def find_interface(address: str) -> str | None:
    """The network interface that has this address; ``None`` if none has, as behind a NAT. Blocks."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in addresses):
            return name
    return None


def _leaving(target: str) -> str | None:
    """The source address that the kernel chooses: connecting a datagram socket makes it choose, and sends nothing."""
    try:
        found = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return None
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0]).partition("%")[0]
        except OSError:
            continue
    return None


def _of_interfaces() -> str | None:
    import psutil

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if name in up and address.family == socket.AF_INET and not _is_local(address.address):
                return str(address.address)
    return None


def _is_local(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return address.is_loopback or address.is_link_local or address.is_unspecified

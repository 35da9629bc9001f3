"""Who is at the ends of a connection: as a server tells it, and as both ends are looked up in the kernel's tables."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

import attrs

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


@attrs.frozen
class Peer:
    """One end of a connection; ``host`` is "unix" for a local socket. IPv4 in IPv6 is written as IPv4."""

    host: str
    port: int


def peer_of(address: object) -> Peer:
    """From an address as the socket module gives it."""
    match address:
        case (str(host), int(port), *_):
            return Peer(host.removeprefix("::ffff:") if "." in host else host, port)
        case _:
            return Peer("unix", 0)


@attrs.frozen
class AddressPair:
    """Both ends of a TCP connection: the client's (``there``) and the server's (``here``). IPv4 in IPv6 is IPv4."""

    there: tuple[Ip, int]
    here: tuple[Ip, int]

    @classmethod
    def of(cls, there: Sequence[object], here: Sequence[object]) -> AddressPair:
        """From addresses as the socket module gives them. Raises ``ValueError`` for what is no IP address."""
        return cls(_end(there), _end(here))

    @property
    def turned(self) -> AddressPair:
        """The same connection as the other side sees it."""
        return AddressPair(self.here, self.there)

    @property
    def family(self) -> int:
        return socket.AF_INET if self.there[0].version == 4 else socket.AF_INET6


def _end(address: Sequence[object]) -> tuple[Ip, int]:
    match address:
        case (str(host), int(port), *_):
            ip = ipaddress.ip_address(host.partition("%")[0])
            return getattr(ip, "ipv4_mapped", None) or ip, port
        case _:
            raise ValueError("this is no connection by IP")

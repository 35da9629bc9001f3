"""Where a redirect may lead, and what may be sent there."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import attrs
import trio

from gpustack.config.proxy import address_written
from gpustack.remote.connection_guard import Connected
from gpustack.remote.http import BadResponse

MOST = 6
"""Hops; a hub needs two or three."""

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})
_METADATA = frozenset({"metadata.google.internal", "metadata", "instance-data"})
_SERVICES = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"),
    )
)
"""Where clouds tell a machine its secrets; the first is the one of most of them."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


def next_url(current: str, location: str | None) -> str:
    """The address that ``location`` names, seen from ``current``.

    Raises BadReply when there is none, when it is not http(s), or when it would leave TLS.
    """
    if not location:
        raise BadResponse(current, "answered with a redirect to nowhere")
    try:
        url = urljoin(current, location)
        parts = _split(url)
    except ValueError as error:
        raise BadResponse(current, "redirects to something that is not an address") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise BadResponse(
            current, f"redirects to a {parts.scheme or 'nameless'} address: only http and https are followed"
        )
    if parts.scheme == "http" and _split(current).scheme == "https":
        raise BadResponse(current, "redirects from https to http, which is not followed")
    return url


def headers_for(url: str, origin: str, headers: Mapping[str, str]) -> dict[str, str]:
    """``headers`` meant for ``origin``, without credentials where ``url`` has another scheme, host or port."""
    if _origin(url) == _origin(origin):
        return dict(headers)
    return {name: value for name, value in headers.items() if name.lower() not in _SECRETS}


@attrs.frozen
class RedirectPolicy:
    """How far inside a redirect may lead. A name may mean one address now and another when it is connected to."""

    url: str
    _deepest: int

    def connected(self, address: str) -> None:
        """A connection was made to that IP address. Raises BadReply when it has gone too far."""
        if _depth(ipaddress.ip_address(address.partition("%")[0])) > self._deepest:
            raise _inside(self.url)


def names_no_machine(host: str) -> bool:
    """Whether an IP address, however it is written, or a name belongs to the cloud itself, to many or to nobody."""
    address = address_of(host)
    if address is None:
        return host.lower().rstrip(".") in _METADATA
    return address in _SERVICES or address.is_multicast or address.is_unspecified


def is_loopback(host: str) -> bool:
    """Whether an IP address, however it is written, or a name means the machine itself."""
    address = address_written(host)
    return _depth_of_name(host.lower()) == _LOOPBACK if address is None else _depth(address) == _LOOPBACK


def address_of(host: str) -> _Ip | None:
    """The IP address that is meant, however it is written and whatever carries it; ``None`` for a name."""
    address = address_written(host)
    return address if address is None else _carried(address) or address


async def refuse_inner(url: str, origin: str, answered: str | None) -> Connected | None:
    """Raise BadReply when a redirect from ``origin`` leads into this machine or its cloud's metadata service.

    ``answered`` is the IP address that sent us there. What the name of ``origin`` means is not looked up again: who
    answers for the name may say something else each time. Where it is not known, the hub counts as public unless its
    name is an address. A hub on loopback or in a private network may redirect to its like. A name that cannot be
    looked up here is left to the proxy, or to what is returned: how the connection itself is to be judged. None where
    it is no redirect.
    """
    if _origin(url) == _origin(origin):
        return None
    return _judge(url, await _addresses(_host(url)), _here(origin, answered))


def refuse_inner_blocking(url: str, origin: str, answered: str | None) -> Connected | None:
    """The same in a thread, for a library that follows redirects by itself."""
    if _origin(url) == _origin(origin):
        return None
    return _judge(url, _parsed(_found(_host(url))), _here(origin, answered))


def _here(origin: str, answered: str | None) -> _Ip | None:
    return address_written(answered or _host(origin))


def _judge(url: str, there: Sequence[_Ip], here: _Ip | None) -> Connected:
    trusted = _PUBLIC if here is None else min(_depth(here), _LOOPBACK)
    deepest = max(_depth_of_name(_host(url)), *(_depth(address) for address in there), _PUBLIC)
    if deepest > trusted:
        raise _inside(url)
    return RedirectPolicy(url, trusted).connected


def _inside(url: str) -> BadResponse:
    return BadResponse(
        url, "is an address inside this machine or network, to which redirects are not followed"
    )


_PUBLIC, _PRIVATE, _LOOPBACK, _NEVER = 0, 1, 2, 3


def _depth_of_name(host: str) -> int:
    """What a name tells that can perhaps not be looked up here, but by a proxy."""
    name = host.rstrip(".")
    if name in _METADATA:
        return _NEVER
    return _LOOPBACK if name == "localhost" or name.endswith(".localhost") else _PUBLIC


def _depth(address: _Ip) -> int:
    """How far inside an address lies: 0 for the public network."""
    within = _carried(address)
    if within is not None:
        return _depth(within)
    if address.is_link_local or address.is_multicast or address.is_unspecified or address in _SERVICES:
        return _NEVER
    if address.is_loopback:
        return _LOOPBACK
    # What is neither private nor global is shared by a provider's customers, or by the machines of one company.
    return _PUBLIC if address.is_global and not address.is_reserved and not _is_site(address) else _PRIVATE


def _is_site(address: _Ip) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.is_site_local


def _carried(address: _Ip) -> ipaddress.IPv4Address | None:
    """The IPv4 address that one of IPv6 stands for: mapped, compatible, 6to4, Teredo, or by a NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return last if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1) else None


async def _addresses(host: str) -> list[_Ip]:
    try:
        return _parsed(await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return []


def _found(host: str) -> Sequence[tuple[Any, ...]]:
    try:
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []


def _parsed(found: Sequence[tuple[Any, ...]]) -> list[_Ip]:
    return [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


def _host(url: str) -> str:
    return _split(url).hostname or ""


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = _split(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError here rather than later
    return parts

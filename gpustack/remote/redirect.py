"""Where a redirect may lead, and what may be sent there."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import trio

from gpustack.remote.http import BadReply

MOST = 6
"""Hops; a hub needs two or three."""

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})
_METADATA = frozenset({"metadata.google.internal", "metadata", "instance-data"})


def next_url(current: str, location: str | None) -> str:
    """The address that ``location`` names, seen from ``current``.

    Raises BadReply when there is none, when it is not http(s), or when it would leave TLS.
    """
    if not location:
        raise BadReply(current, "answered with a redirect to nowhere")
    try:
        url = urljoin(current, location)
        parts = _split(url)
    except ValueError as error:
        raise BadReply(current, "redirects to something that is not an address") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise BadReply(
            current, f"redirects to a {parts.scheme or 'nameless'} address: only http and https are followed"
        )
    if parts.scheme == "http" and _split(current).scheme == "https":
        raise BadReply(current, "redirects from https to http, which is not followed")
    return url


def headers_for(url: str, origin: str, headers: Mapping[str, str]) -> dict[str, str]:
    """``headers`` meant for ``origin``, without credentials where ``url`` has another scheme, host or port."""
    if _origin(url) == _origin(origin):
        return dict(headers)
    return {name: value for name, value in headers.items() if name.lower() not in _SECRETS}


async def refuse_inner(url: str, origin: str) -> None:
    """Raise BadReply when a redirect from ``origin`` leads into this machine or its cloud's metadata service.

    A hub on loopback or in a private network may redirect to its like. A name that cannot be looked up here is left
    to the proxy or to the connection to fail.
    """
    if _origin(url) == _origin(origin):
        return
    there, here = _host(url), _host(origin)
    _judge(url, await _addresses(there), await _addresses(here))


def refuse_inner_blocking(url: str, origin: str) -> None:
    """The same in a thread, for a library that follows redirects by itself."""
    if _origin(url) == _origin(origin):
        return
    _judge(url, _parsed(_found(_host(url))), _parsed(_found(_host(origin))))


def _judge(url: str, there: Sequence[_Ip], here: Sequence[_Ip]) -> None:
    trusted = max((_depth(address) for address in here), default=0)
    deepest = max((_depth(address) for address in there), default=0)
    if _host(url) in _METADATA or deepest > min(trusted, _LOOPBACK):
        raise BadReply(
            url, "is an address inside this machine or network, to which redirects are not followed"
        )


_PRIVATE, _LOOPBACK, _NEVER = 1, 2, 3


def _depth(address: _Ip) -> int:
    """How far inside an address lies: 0 for the public network."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return _depth(address.ipv4_mapped)
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return _NEVER
    if address.is_loopback:
        return _LOOPBACK
    return _PRIVATE if address.is_private else 0


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

"""Redirects: where one may lead, what may be sent there, and calls that follow them.

An answer from the public network must not make us ask an address of this machine, of its private network or of its
cloud's metadata service. A name is judged by the addresses it has now, and again by the address that was connected to.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import attrs
import trio

from gpustack.config.proxy import address_written
from gpustack.remote.connection_guard import Connected
from gpustack.remote.http import (
    BadResponse,
    HttpClient,
    HttpResponse,
    RemoteError,
    RemoteTimeout,
    StreamedResponse,
    open_client_aside,
)

MOST = 6
"""The most redirects that are followed; a hub needs two or three."""
LARGEST_DOCUMENT = 4 << 20
"""Bytes."""
_REDIRECT_BODY, _REDIRECT_BODY_WITHIN = 64 << 10, 2.0
"""Bytes and seconds to read the body of a redirect, which nobody needs."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})

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
"""The metadata services of clouds, which tell a machine its secrets; most use the first address."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


@contextlib.asynccontextmanager
async def follow_redirects(
    client: HttpClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    origin: str | None = None,
    answered: str | None = None,
    enough: Callable[[StreamedResponse], bool] = lambda response: False,
) -> AsyncIterator[StreamedResponse]:
    """Ask, follow redirects, and hand out the last answer once its head is here, or the first that is ``enough``.

    ``origin`` is the URL that the headers are meant for, where ``url`` is already the target of a redirect from there;
    then ``answered`` is the IP address that sent us to ``url``. Credentials in ``headers`` are sent to ``origin`` only.
    Raises RemoteError.
    """
    origin, place = origin or url, url
    for _ in range(MOST + 1):
        connected = await refuse_inner(place, origin, answered)
        sent = headers_for(place, origin, headers)
        async with client.stream(method, place, headers=sent, connected=connected) as response:
            if response.status not in REDIRECTS or enough(response):
                yield response
                return
            answered = response.address
            place = next_url(place, response.headers.get("location"))
            # The connection can be used again where little follows, and soon; else it is closed.
            with contextlib.suppress(RemoteError), trio.move_on_after(_REDIRECT_BODY_WITHIN):
                await response.read(_REDIRECT_BODY)
    raise BadResponse(origin, f"redirects more than {MOST} times")


async def fetch_document(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    limit: int = LARGEST_DOCUMENT,
    deadline: float = 30.0,
) -> HttpResponse:
    """The answer behind ``url`` and its redirects, read whole, whatever its status.

    ``limit`` is in bytes, ``deadline`` in seconds. Raises RemoteError. Cancellable at any time.
    """
    with trio.move_on_after(deadline):
        async with (
            await open_client_aside() as client,
            follow_redirects(client, "GET", url, headers=headers or {}) as response,
        ):
            return await response.whole(limit)
    raise RemoteTimeout(url, f"did not answer within {deadline:g} s")


def next_url(current: str, location: str | None) -> str:
    """The URL that the header ``location`` of an answer from ``current`` names.

    Raises BadResponse when there is none, when it is not http(s), or when it leads from https to http.
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
    """``headers`` without credentials where ``url`` has another scheme, host or port than ``origin``."""
    if _origin(url) == _origin(origin):
        return dict(headers)
    return {name: value for name, value in headers.items() if name.lower() not in _SECRETS}


@attrs.frozen
class RedirectPolicy:
    """How far inside a redirect may lead: checked again when connected, since a name may have got another address."""

    url: str
    _deepest: int

    def connected(self, address: str) -> None:
        """Check the IP address of a connection that was just made; raises BadResponse when it lies too far inside."""
        if _depth(ipaddress.ip_address(address.partition("%")[0])) > self._deepest:
            raise _refusal(self.url)


def names_no_machine(host: str) -> bool:
    """Whether ``host``, a name or an IP address in any spelling, is a metadata service, multicast or unspecified."""
    address = address_of(host)
    if address is None:
        return host.lower().rstrip(".") in _METADATA
    return address in _SERVICES or address.is_multicast or address.is_unspecified


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an IP address in any spelling, is this machine."""
    address = address_written(host)
    return _name_depth(host.lower()) == _LOOPBACK if address is None else _depth(address) == _LOOPBACK


def address_of(host: str) -> _Ip | None:
    """The IP address in any spelling; an IPv4 address inside one of IPv6 is taken out. ``None`` for a name."""
    address = address_written(host)
    return address if address is None else _carried(address) or address


async def refuse_inner(url: str, origin: str, answered: str | None) -> Connected | None:
    """Raise BadResponse when a redirect from ``origin`` to ``url`` leads further inside than ``origin`` itself lies.

    ``answered`` is the IP address that sent the redirect; the name of ``origin`` is not looked up again, since its DNS
    may answer something else each time. Where ``answered`` is not known, ``origin`` counts as public unless its host is
    an IP address. An origin on loopback or in a private network may redirect to its like, but never to a metadata
    service.

    Returns the check to run on the address of the connection, which also covers names that cannot be looked up here;
    ``None`` where ``url`` and ``origin`` are the same server.
    """
    if _origin(url) == _origin(origin):
        return None
    return _policy(url, await _look_up_async(_host(url)), _origin_address(origin, answered))


def refuse_inner_blocking(url: str, origin: str, answered: str | None) -> Connected | None:
    """``refuse_inner`` for use in a thread, by a library that follows redirects itself."""
    if _origin(url) == _origin(origin):
        return None
    return _policy(url, _ip_addresses(_look_up(_host(url))), _origin_address(origin, answered))


def _origin_address(origin: str, answered: str | None) -> _Ip | None:
    return address_written(answered or _host(origin))


def _policy(url: str, there: Sequence[_Ip], here: _Ip | None) -> Connected:
    trusted = _PUBLIC if here is None else min(_depth(here), _LOOPBACK)
    deepest = max(_name_depth(_host(url)), *(_depth(address) for address in there), _PUBLIC)
    if deepest > trusted:
        raise _refusal(url)
    return RedirectPolicy(url, trusted).connected


def _refusal(url: str) -> BadResponse:
    return BadResponse(
        url, "is an address inside this machine or network, to which redirects are not followed"
    )


_PUBLIC, _PRIVATE, _LOOPBACK, _NEVER = 0, 1, 2, 3


def _name_depth(host: str) -> int:
    """How far inside a name lies, by itself: it may be one that only a proxy can look up."""
    name = host.rstrip(".")
    if name in _METADATA:
        return _NEVER
    return _LOOPBACK if name == "localhost" or name.endswith(".localhost") else _PUBLIC


def _depth(address: _Ip) -> int:
    """How far inside an address lies, from ``_PUBLIC`` to ``_NEVER``."""
    within = _carried(address)
    if within is not None:
        return _depth(within)
    if address.is_link_local or address.is_multicast or address.is_unspecified or address in _SERVICES:
        return _NEVER
    if address.is_loopback:
        return _LOOPBACK
    # Addresses that are neither private nor global are shared by customers of a provider, or within one company.
    return _PUBLIC if address.is_global and not address.is_reserved and not _is_site(address) else _PRIVATE


def _is_site(address: _Ip) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.is_site_local


def _carried(address: _Ip) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, compatible, 6to4, Teredo, or NAT64."""
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


async def _look_up_async(host: str) -> list[_Ip]:
    try:
        return _ip_addresses(await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return []


def _look_up(host: str) -> Sequence[tuple[Any, ...]]:
    try:
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []


def _ip_addresses(found: Sequence[tuple[Any, ...]]) -> list[_Ip]:
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

"""The proxies that the environment names, and which address is reached through which. Pure.

Reads ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``; the same names in lower case override them, as in
other programs. ``remote/`` asks here for every outgoing request.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import socket
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, unquote

import attrs

from gpustack.text import character_fault, printable, redacted, trimmed

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_SPELLED = {"socks": "socks5"}
"""Desktop environments write ``socks://``."""
_WEB = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")
_LONGEST_LOGIN = 255
"""The most bytes of a user name, and of a password, that SOCKS can carry."""


@attrs.frozen(kw_only=True)
class ProxyAddress:
    """A proxy as a variable names it. With a ``fault`` it cannot be used, and the other fields are empty."""

    variable: str
    scheme: str = ""
    host: str = ""
    port: int = 0
    user: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    fault: str | None = None
    """A sentence that names the variable, without the password."""

    @property
    def is_socks(self) -> bool:
        return self.scheme.startswith("socks")

    @property
    def shown(self) -> str:
        """The address without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address with credentials, for other programs."""
        if self.user is None:
            return self.shown
        login = quote(self.user, safe="")
        login += "" if self.password is None else f":{quote(self.password, safe='')}"
        return self.shown.replace("://", f"://{login}@", 1)


@attrs.frozen(kw_only=True)
class Exemption:
    """One entry of ``NO_PROXY``: a network, a name with all names below it, or a pattern with ``*``.

    ``port`` and ``scheme`` limit it, where they are not ``None``.
    """

    text: str
    network: _Network | None = None
    pattern: str | None = None
    port: int | None = None
    scheme: str | None = None

    def covers(self, scheme: str, host: str, port: int | None, address: IpAddress | None) -> bool:
        """Whether the entry covers a target. ``host`` is in lower case, ``address`` set if it is an IP address."""
        if self.port not in (None, port or _WEB.get(scheme)) or self.scheme not in (None, scheme):
            return False
        if self.network is not None:
            return address is not None and address.version == self.network.version and address in self.network
        pattern = self.pattern or ""
        if "*" in pattern:
            return fnmatch.fnmatchcase(host, pattern)
        return address is None and (host == pattern or host.endswith(f".{pattern}"))


@attrs.frozen(kw_only=True)
class ProxyRoutes:
    """Which targets are reached through which proxy."""

    http: ProxyAddress | None = None
    https: ProxyAddress | None = None
    exempt: tuple[Exemption, ...] = ()
    misread: tuple[str, ...] = ()
    """Faults of ``NO_PROXY``, and variables whose names mix cases and are not read; a sentence each."""

    def route(self, scheme: str, host: str, port: int | None) -> ProxyAddress | None:
        """The proxy for a target, which may have a ``fault``; ``None`` where the target is reached directly.

        This machine is never reached through a proxy. Names are not looked up.
        """
        proxy = self.https if scheme == "https" else self.http
        if proxy is None:
            return None
        name = host.lower().strip("[]").rstrip(".")
        address = address_written(name)
        if name == "localhost" or name.endswith(".localhost"):
            return None
        if address is not None and (address.is_loopback or address.is_unspecified):
            return None
        if any(one.covers(scheme, name, port, address) for one in self.exempt):
            return None
        return proxy

    @property
    def proxies(self) -> tuple[ProxyAddress, ...]:
        """The proxies, each once."""
        return tuple(dict.fromkeys(one for one in (self.http, self.https) if one is not None))

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything that is wrong, a sentence each."""
        return (*(one.fault for one in self.proxies if one.fault is not None), *self.misread)


NO_PROXIES = ProxyRoutes()


def read_proxies(env: Mapping[str, str]) -> ProxyRoutes:
    """The routes that ``env`` describes. Never raises: what is wrong is in ``faults``."""
    everything = _proxy(env, "ALL_PROXY")
    exempt: list[Exemption] = []
    misread = [
        f"{name} is not read: write {name.upper()} or {name.lower()}"
        for name in sorted(env)
        if name.upper() in _VARIABLES and name not in (name.upper(), name.lower())
    ]
    variable, text = _value(env, "NO_PROXY")
    for entry in filter(None, re.split(r"[,;\s]+", text)):
        try:
            exempt.append(_exemption(entry))
        except ValueError:
            shown = printable(redacted(entry), 60)
            misread.append(
                f"{variable} has {shown!r}, which is no host, address, network (10.0.0.0/8) or host:port: it is "
                "passed over"
            )
    return ProxyRoutes(
        http=_proxy(env, "HTTP_PROXY") or everything,
        https=_proxy(env, "HTTPS_PROXY") or everything,
        exempt=tuple(exempt),
        misread=tuple(misread),
    )


@lru_cache(maxsize=1024)  # the addresses of workers and clients, again and again
def address_written(host: str) -> IpAddress | None:
    """The IP address that ``host`` stands for, in any spelling; ``None`` for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))  # 2130706433, 0x7f.1 and their like
        except (OSError, UnicodeError):
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def exempted_to_others(routes: ProxyRoutes) -> tuple[str, list[str]]:
    """``NO_PROXY`` for programs that read hosts and networks only, and the entries that have no such form."""
    kept, lost = ["localhost", "127.0.0.0/8", "::1"], []
    for one in routes.exempt:
        if one.port is not None or one.scheme is not None or "*" in (one.pattern or "").removeprefix("*"):
            lost.append(one.text)
        elif one.pattern == "*":
            return "*", []
        else:
            kept.append(
                str(one.network) if one.network is not None else (one.pattern or "").removeprefix("*")
            )
    return ",".join(kept), lost


def environment_of_others(routes: ProxyRoutes, env: Mapping[str, str]) -> dict[str, str]:
    """``env`` for another program that reads these variables itself, in the form that all programs read."""
    told = {name: value for name, value in env.items() if name.upper() not in _VARIABLES}
    for name, proxy in (("HTTP_PROXY", routes.http), ("HTTPS_PROXY", routes.https)):
        if proxy is not None and proxy.fault is None:
            told |= {name: proxy.url, name.lower(): proxy.url}
    exempt, _ = exempted_to_others(routes)
    return {**told, "NO_PROXY": exempt, "no_proxy": exempt}


_VARIABLES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})


def _value(env: Mapping[str, str], name: str) -> tuple[str, str]:
    """The name and value of the variable that counts. One in lower case counts also when it is empty."""
    found = name.lower() if name.lower() in env else name
    return found, trimmed(env.get(found, ""))


def _proxy(env: Mapping[str, str], name: str) -> ProxyAddress | None:
    variable, text = _value(env, name)
    if not text:
        return None
    try:
        return _read(variable, text)
    except ValueError as error:
        return ProxyAddress(variable=variable, fault=f"{variable} {error}")


def _read(variable: str, text: str) -> ProxyAddress:
    """The proxy in ``text``. Raises ValueError with the rest of a sentence that begins with the variable."""
    if fault := character_fault(text):
        raise ValueError(fault)
    written, found, rest = text.partition("://")
    scheme, rest = (written.lower(), rest) if found else ("http", text)
    scheme = _SPELLED.get(scheme, scheme)
    if scheme in ("socks4", "socks4a"):
        raise ValueError(
            "names a proxy of SOCKS 4, which is not spoken here: write socks5:// if it knows that too, or name "
            "another"
        )
    if scheme not in _PORTS:
        raise ValueError(f"must be the address of a proxy such as {_EXAMPLES}: the scheme is none of these")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(place) :]:
        raise ValueError(
            "has a / ? or # in its user or password: write special characters there as %2F, %3F and %23"
        )
    login, at, address = place.rpartition("@")
    host, port = _host_and_port(address, _PORTS[scheme])
    if not at:
        return ProxyAddress(variable=variable, scheme=scheme, host=host, port=port)
    user, colon, password = login.partition(":")
    words = [unquote(user), unquote(password) if colon else None]
    if scheme.startswith("socks"):
        words[1] = words[1] or ""
        if any(len((word or "").encode()) > _LONGEST_LOGIN for word in words):
            raise ValueError(
                f"has a user or password longer than the {_LONGEST_LOGIN} bytes that SOCKS takes"
            )
    return ProxyAddress(
        variable=variable, scheme=scheme, host=host, port=port, user=words[0], password=words[1]
    )


_EXAMPLES = "http://host:3128 or socks5://host:1080"


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    host, given = _split(text)
    port = _port(given) if given else default
    if port is None:
        raise ValueError(f"must be the address of a proxy such as {_EXAMPLES}: the port is none")
    name = _name(host)
    if name is None:
        raise ValueError(f"must be the address of a proxy such as {_EXAMPLES}: the host is none")
    return name, port


def _port(text: str) -> int | None:
    """The number of a port; ``None`` for anything else."""
    is_number = text.isascii() and text.isdigit() and len(text) < 6
    return int(text) if is_number and 0 < int(text) < 65536 else None


def _split(text: str) -> tuple[str, str | None]:
    """Host and port of ``host:port``, ``[host]:port`` or ``host``; an IPv6 address may be without brackets."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or rest[:1] not in ("", ":"):
            return "", None
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _name(host: str) -> str | None:
    """A host as it is sent (IDNA, lower case); ``None`` if it is not valid."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        plain = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    return plain.lower() if len(plain) < 254 and ".." not in plain and _HOST.fullmatch(plain) else None


def _exemption(entry: str) -> Exemption:
    """The entry in ``entry``; raises ValueError if it is not valid."""
    if fault := character_fault(entry):
        raise ValueError(fault)
    written, found, rest = entry.rpartition("://")
    scheme = written.lower() if found else None
    if scheme not in (None, "http", "https", "all"):
        raise ValueError(entry)
    scheme = None if scheme == "all" else scheme
    text = rest.rstrip("/") if found else entry
    network = _network(text)
    if network is not None:
        return Exemption(text=entry, network=network, scheme=scheme)
    if "/" in text:
        raise ValueError(entry)
    host, given = _split(text)
    port = None if given is None else _port(given)
    if given is not None and port is None:
        raise ValueError(entry)
    network = _network(host)
    if network is not None:
        return Exemption(text=entry, network=network, port=port, scheme=scheme)
    pattern = host.lower()
    if "*" in pattern:
        bare = pattern.replace("*", "x")
        if _name(bare.strip(".")) is None:
            raise ValueError(entry)
        return Exemption(text=entry, pattern=pattern, port=port, scheme=scheme)
    name = _name(host.strip("."))
    if name is None:
        raise ValueError(entry)
    return Exemption(text=entry, pattern=name, port=port, scheme=scheme)


def _network(text: str) -> _Network | None:
    """The network, or single address, in ``text``; host bits may be set. ``None`` for anything else."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        found = ipaddress.ip_network(bare.partition("%")[0], strict=False)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Network):
        mapped = found.network_address.ipv4_mapped
        if mapped is not None and found.prefixlen >= 96:
            found = ipaddress.ip_network(f"{mapped}/{found.prefixlen - 96}", strict=False)
    return found

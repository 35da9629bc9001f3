"""What in the head of a request says who sends it."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import urlsplit

import attrs

from .sessions import token_in

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
API_KEY = b"x-api-key"
STAND_INS = frozenset(
    {
        "local",
        "none",
        "null",
        "empty",
        "dummy",
        "unused",
        "not-needed",
        "not-used",
        "no-key",
        "no-key-required",
    }
    | {"sk-no-key-required", "gpustack", "lm-studio", "ollama", "x", "-"}
)
"""Placeholders for a key, for clients that insist on one; in lower case."""

_WITHIN_NAMES = (b"forward", b"client-ip", b"clientip", b"connecting-ip", b"real-ip", b"remote-", b"proxy")
_BEGINNINGS = tuple(
    (
        b"cf- cdn- fly- fastly- tailscale- true-client x-amz-cf- x-amzn- x-appengine- x-arr- "
        b"x-auth-request- x-azure- x-client- x-cloud-trace x-cluster- x-envoy- x-haproxy- x-nginx- "
        b"x-original- x-real- x-scheme x-ssl- x-vercel- x-varnish ssl-client- akamai- x-akamai- "
        b"surrogate- x-bluecoat- x-kong- x-authelia- x-authentik- x-goog-iap- x-ms-client- x-pomerium- "
        b"x-vouch- x-webauth-"
    ).split()
)
_NAMES = frozenset({b"via", b"max-forwards", b"x-host", b"x-via"})


def is_forwarding(name: bytes) -> bool:
    """Whether a header (its name in lower case) is one that proxies add: then the peer is not the client."""
    return _known_forwarding(name) if len(name) <= _SHORT_NAME else _is_forwarding(name)


def _is_forwarding(name: bytes) -> bool:
    name = name.replace(b"_", b"-")
    return name in _NAMES or name.startswith(_BEGINNINGS) or any(part in name for part in _WITHIN_NAMES)


_SHORT_NAME = 64
"""Bytes of a name that is remembered: every request has the same few."""
_known_forwarding = lru_cache(maxsize=256)(_is_forwarding)

_FORMS = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
_DEFAULT_PORTS = {"http": 80, "https": 443, "": None}
_LONGEST = 8192


@attrs.frozen(kw_only=True)
class Credentials:
    """Header values as they came, ``None`` where there was none. ``cookie`` is the session token."""

    authorization: str | None = attrs.field(default=None, repr=False)
    cookie: str | None = attrs.field(default=None, repr=False)
    peer_host: str | None = None
    host: str | None = None
    origin: str | None = None
    sec_fetch_site: str | None = None
    forwarded: bool = False
    method: str = "GET"
    content_type: str | None = None

    @classmethod
    def read(
        cls, get: Callable[[bytes], bytes | None], names: Iterable[bytes], peer: str | None, method: str
    ) -> Credentials:
        """From the headers of a request: ``get`` takes a lower-case name, ``names`` are all names.

        ``peer`` is the address that it comes from. ``X-API-Key``, which Anthropic's clients send, counts as a bearer
        token where there is no ``Authorization``.
        """

        def text(name: bytes) -> str | None:
            value = get(name)
            return None if value is None else value[:_LONGEST].decode("latin-1").strip()

        authorization, api_key = text(b"authorization"), text(API_KEY)
        return cls(
            authorization=f"Bearer {api_key}" if authorization is None and api_key else authorization,
            cookie=token_in(text(b"cookie")),
            peer_host=peer,
            host=text(b"host"),
            origin=text(b"origin"),
            sec_fetch_site=text(b"sec-fetch-site"),
            forwarded=any(map(is_forwarding, names)),
            method=method.upper(),
            content_type=text(b"content-type"),
        )

    @property
    def bearer(self) -> str | None:
        """The token of ``Authorization: Bearer``."""
        return self._scheme("bearer")

    @property
    def basic(self) -> tuple[str, str] | None:
        """Name and password of ``Authorization: Basic``; ``None`` when it cannot be read."""
        given = self._scheme("basic")
        if given is None:
            return None
        try:
            name, colon, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        return (name, password) if colon else None

    @property
    def shows_nothing(self) -> bool:
        """There are no credentials but, at most, a placeholder for a key.

        Cookies do not count: browsers add them by themselves.
        """
        if self.bearer is not None:
            return self.bearer.lower() in STAND_INS
        scheme, _, value = (self.authorization or "").partition(" ")
        return not value.strip() and scheme.lower() in ("", "bearer")

    @property
    def is_safe(self) -> bool:
        """The method changes nothing (RFC 9110: safe)."""
        return self.method in SAFE_METHODS

    @property
    def is_from_this_machine(self) -> bool:
        """A program on this machine sends it for itself: without a proxy, and to a name that means this machine.

        The name matters because a page of another site may let its own name resolve to 127.0.0.1 (DNS rebinding).
        """
        return (
            not self.forwarded
            and _is_loopback(self.peer_host)
            and _is_loopback_name(_host_of(self.host or ""))
        )

    @property
    def may_be_another_site(self) -> bool:
        """A page of another site may have made a browser send it, with its visitor's login (CSRF).

        Browsers say where a request that changes something comes from, most of them in ``Sec-Fetch-Site``, and pages
        cannot alter that. A request that does not say it comes from a program, unless it could be an HTML form.
        """
        if self.sec_fetch_site is not None:
            return self.sec_fetch_site.lower() not in ("same-origin", "none")
        if self.origin is not None:
            return not self._is_own_origin(self.origin)
        kind = (self.content_type or "").partition(";")[0].strip().lower()
        return kind in _FORMS

    def _is_own_origin(self, origin: str) -> bool:
        """Same host and port. The scheme is not compared: a proxy may terminate TLS."""
        asked = _host_and_port(f"//{self.host or ''}", None)
        parts = origin.partition("://")
        if parts[0].lower() not in ("http", "https") or asked is None:
            return False
        port = _DEFAULT_PORTS[parts[0].lower()]
        from_ = _host_and_port(origin, port)
        return from_ is not None and from_ in (asked, (asked[0], asked[1] or port))

    def _scheme(self, name: str) -> str | None:
        scheme, _, value = (self.authorization or "").partition(" ")
        return value.strip() if scheme.lower() == name and value.strip() else None


def _host_and_port(url: str, default: int | None) -> tuple[str, int | None] | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return host.lower(), port or default


def _host_of(host: str) -> str:
    found = _host_and_port(f"//{host}", None)
    return "" if found is None else found[0]


def _is_loopback(address: str | None) -> bool:
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def _is_loopback_name(host: str) -> bool:
    return host in ("localhost", "localhost.") or _is_loopback(host)

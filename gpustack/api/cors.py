"""CORS: which pages of other sites may read answers, said in headers that the front adds to every answer.

It is applied where requests come in, to inference, worker requests, health checks and the application alike, errors
included. It admits nobody: credentials are checked all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import attrs

from gpustack.http1.fields import TOKEN
from gpustack.http1.head import RequestHead

from .problems import problem_of_status

Fields = list[tuple[bytes, bytes]]

ANY = "*"
REMEMBERED = 600
"""Seconds for which a browser may keep the answer to a preflight request."""
EXPOSED = b"Retry-After, X-Revision, X-Request-Id, X-GPUStack-Ignored, Link"
"""Headers of an answer that scripts may read, besides those that CORS always allows."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_DISALLOWED = (
    "Pages of {origin} may not read this server's answers: add it with --allow-origins {origin} when the server "
    "is started"
)


@attrs.frozen
class PreflightAnswer:
    """The answer to a preflight request."""

    status: int
    fields: Fields
    body: bytes = b""


@attrs.frozen
class CorsPolicy:
    """Made by ``cross_origin``. ``origins`` is ``None`` where any page may read answers, without cookies then."""

    origins: frozenset[str] | None
    methods: bytes
    any_method: bool
    headers: bytes
    any_header: bool
    credentials: bool

    @property
    def trusted(self) -> frozenset[str]:
        """The origins whose pages may act with their visitor's login."""
        return self.origins if self.credentials and self.origins is not None else frozenset()

    def fields(self, head: RequestHead) -> Fields:
        """The headers for the answer to a request, whatever its status."""
        origin = head.get(b"origin")
        if origin is None:
            # A cache must not give this answer to a page, which needs other headers.
            return [] if self.origins is None else [(b"vary", b"Origin")]
        return [*self._origin(origin), (b"access-control-expose-headers", EXPOSED)]

    def preflight(self, head: RequestHead) -> PreflightAnswer | None:
        """The answer to a preflight request, the same for all paths; ``None`` for any other request."""
        origin, method = head.get(b"origin"), head.get(b"access-control-request-method")
        if head.method != "OPTIONS" or origin is None or method is None:
            return None
        allowed = self._origin(origin)
        if not any(name == b"access-control-allow-origin" for name, _ in allowed):
            shown = origin[:200].decode("latin-1")
            problem = problem_of_status(403, _DISALLOWED.format(origin=shown))
            return PreflightAnswer(
                403, [*allowed, (b"content-type", b"application/json")], problem.body(head.path)
            )
        fields = [*allowed, (b"access-control-max-age", b"%d" % REMEMBERED)]
        # With credentials "*" is no wildcard, and it never covers Authorization: repeat what was asked for.
        fields.append((b"access-control-allow-methods", _asked(method) if self.any_method else self.methods))
        wanted = head.get(b"access-control-request-headers") or b""
        headers = _asked(wanted) if self.any_header else self.headers
        if headers:
            fields.append((b"access-control-allow-headers", headers))
        return PreflightAnswer(204, fields)

    def _origin(self, origin: bytes) -> Fields:
        if self.origins is None:
            return [(b"access-control-allow-origin", b"*")]
        vary = (b"vary", b"Origin")
        if origin.decode("latin-1").lower() not in self.origins:
            return [vary]
        fields = [(b"access-control-allow-origin", origin), vary]
        if self.credentials:
            fields.append((b"access-control-allow-credentials", b"true"))
        return fields


def cross_origin(
    *, origins: Sequence[str], methods: Sequence[str], headers: Sequence[str], credentials: bool
) -> CorsPolicy:
    """The policy of the options ``--allow-*``.

    ``credentials`` apply only to named origins: with "*" browsers send no cookies.
    """
    everybody = ANY in origins
    return CorsPolicy(
        origins=None if everybody else frozenset(_serialised(one) for one in origins),
        methods=", ".join(one.strip().upper() for one in methods if one.strip()).encode("latin-1", "replace"),
        any_method=ANY in methods,
        headers=", ".join(one.strip() for one in headers if one.strip()).encode("latin-1", "replace"),
        any_header=ANY in headers,
        credentials=credentials and not everybody,
    )


def _serialised(origin: str) -> str:
    """An origin as browsers send it: in lower case, without default port and path."""
    text = origin.strip().lower().rstrip("/")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return text
    if not parts.scheme or not parts.hostname:
        return text
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    told = "" if port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{port}"
    return f"{parts.scheme}://{host}{told}"


def _asked(raw: bytes) -> bytes:
    """The valid names in a list that a request sends."""
    names = [name.strip() for name in raw[:4096].split(b",")]
    return b", ".join(name for name in names if name and all(byte in TOKEN for byte in name))

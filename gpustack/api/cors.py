"""Which pages of other sites may read our answers (CORS), told in headers that the front adds to every answer.

Applied once, where connections come in: inference, posts, health and the app behind get the same headers, and
so do their errors. Nothing here lets anybody in: credentials are looked at as ever.
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
"""Seconds for which a browser need not ask again."""
EXPOSED = b"Retry-After, X-Revision, X-Request-Id, Link"
"""What scripts may read of an answer beside the headers that are open to all."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_DISALLOWED = (
    "Pages of {origin} may not read this server's answers: add it with --allow-origins {origin} when the server "
    "is started"
)


@attrs.frozen
class PreflightAnswer:
    """The answer to a browser that asks beforehand."""

    status: int
    fields: Fields
    body: bytes = b""


@attrs.frozen
class CorsPolicy:
    """The rule, made by ``cross_origin``. With ``origins`` ``None`` any page may read; never with cookies then."""

    origins: frozenset[str] | None
    methods: bytes
    any_method: bool
    headers: bytes
    any_header: bool
    credentials: bool

    @property
    def trusted(self) -> frozenset[str]:
        """The origins whose pages may act with a visitor's login."""
        return self.origins if self.credentials and self.origins is not None else frozenset()

    def fields(self, head: RequestHead) -> Fields:
        """What the answer to a request carries, whatever it answers."""
        origin = head.get(b"origin")
        if origin is None:
            # A cache must not give a page an answer that was made for a program.
            return [] if self.origins is None else [(b"vary", b"Origin")]
        return [*self._origin(origin), (b"access-control-expose-headers", EXPOSED)]

    def preflight(self, head: RequestHead) -> PreflightAnswer | None:
        """The answer where a request is such a question; on every path, for it says nothing of what is there."""
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
        # Beside credentials a star means itself, and it never means Authorization: say what was asked for.
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
    """The rule of the options ``--allow-*``.

    A browser sends no cookies to whom everybody may ask: ``credentials`` count for named origins alone.
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
    """An origin as browsers write it: lower case, without its default port and without a path."""
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
    """The names of a request's list that are names at all."""
    names = [name.strip() for name in raw[:4096].split(b",")]
    return b", ".join(name for name in names if name and all(byte in TOKEN for byte in name))

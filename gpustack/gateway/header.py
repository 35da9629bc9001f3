"""Which headers go through the gateway, from clients to engines and back."""

from __future__ import annotations

from typing import Final

from gpustack.domain.route import RUNS, RUNS_LEFT, TARGET_PORT, WORKER_FAULT
from gpustack.errors import BadRequest
from gpustack.http1.fields import HOP_BY_HOP, REQUEST_ID_FIELD, Headers, end_to_end
from gpustack.http1.head import RequestHead

_NOT_FOR_ENGINES: Final = HOP_BY_HOP.union(
    {
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"proxy-authorization",
        b"cookie",
        b"host",
        TARGET_PORT,
        RUNS_LEFT,
        # Usage is read from the answer as it passes: it must not be compressed.
        b"accept-encoding",
        b"content-encoding",
    }
)
# An engine must not speak for our origin: not set its cookies, not open it to other sites.
_NOT_FOR_CLIENTS: Final = HOP_BY_HOP.union(
    {
        b"date",
        b"server",
        b"set-cookie",
        b"set-cookie2",
        b"clear-site-data",
        b"strict-transport-security",
        b"alt-svc",
        b"www-authenticate",
        # Nor may it send clients, or reports about them, elsewhere.
        b"location",
        b"refresh",
        b"report-to",
        b"reporting-endpoints",
        b"nel",
        b"link",
        b"sourcemap",
        b"service-worker-allowed",
        REQUEST_ID_FIELD,
        b"content-security-policy",
        b"x-content-type-options",
        WORKER_FAULT,
        RUNS,
    }
)
_OWN_PREFIXES: Final = (b"access-control-", b"x-ratelimit-")
_PLAIN: Final = (b"application/json", b"text/event-stream")
# Anything else a browser might show as a page: then it is one without scripts and without our origin.
_HARMLESS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
)


def for_engine(head: RequestHead) -> Headers:
    """The headers of a request that its engine gets. Raises ``BadRequest`` where the body is compressed."""
    headers = [
        field
        for field in end_to_end(head.headers, _NOT_FOR_ENGINES)
        # Some engines read "_" in names as "-": they would take content_length for a length that we have not checked.
        if b"_" not in field[0] or field[0].replace(b"_", b"-") not in _NOT_FOR_ENGINES
    ]
    for value in [value for name, value in head.headers if name == b"content-encoding"]:
        if value.lower() != b"identity":
            raise BadRequest("The request body must be sent without a content encoding")
    return headers


def for_client(headers: Headers) -> Headers:
    """The headers of an engine's answer that the client gets."""
    kept = [
        field for field in end_to_end(headers, _NOT_FOR_CLIENTS) if not field[0].startswith(_OWN_PREFIXES)
    ]
    for name, value in kept:
        if name == b"content-type" and value.lower().startswith(_PLAIN):
            return kept
    return [*kept, *_HARMLESS]

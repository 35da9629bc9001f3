"""Which headers go through the gateway: what is between a client and us is nothing to an engine, nor the reverse."""

from __future__ import annotations

from typing import Final

from gpustack.domain.route import RUNS, RUNS_LEFT, TARGET_PORT, WORKER_FAULT
from gpustack.errors import BadRequest
from gpustack.http1.fields import Headers
from gpustack.http1.head import RequestHead
from gpustack.http1.relay import HOP_BY_HOP, end_to_end
from gpustack.http1.reply import REQUEST_ID_FIELD

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
        # What is used is read off the answer as it passes: it must not be compressed.
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
        # Nor send anybody, or a report of what they do, elsewhere.
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
_OURS_TO_SAY: Final = (b"access-control-", b"x-ratelimit-")
_PLAIN: Final = (b"application/json", b"text/event-stream")
# What else a browser might show, or take for a page, is one without scripts and of no origin.
_HARMLESS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
)


def for_engine(head: RequestHead) -> Headers:
    """What an engine gets of a request. Raises ``BadRequest`` for a body that it might read differently from us."""
    headers = [
        field
        for field in end_to_end(head.headers, _NOT_FOR_ENGINES)
        # Some engines take "_" for "-" in names: content_length would be theirs, and nobody's here.
        if b"_" not in field[0] or field[0].replace(b"_", b"-") not in _NOT_FOR_ENGINES
    ]
    for value in [value for name, value in head.headers if name == b"content-encoding"]:
        if value.lower() != b"identity":
            raise BadRequest("The request body must be sent without a content encoding")
    return headers


def for_client(headers: Headers) -> Headers:
    """What a client gets of an engine's answer."""
    kept = [field for field in end_to_end(headers, _NOT_FOR_CLIENTS) if not field[0].startswith(_OURS_TO_SAY)]
    for name, value in kept:
        if name == b"content-type" and value.lower().startswith(_PLAIN):
            return kept
    return [*kept, *_HARMLESS]

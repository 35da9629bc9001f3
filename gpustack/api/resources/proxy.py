"""Passes requests of the console on to model hubs.

Every account may use it, so the rules are strict: https only, known hosts only, redirects only to those and to the
hosts they deliver files from, no cookies either way. The hub's token is sent to the hub alone, and only when an
administrator reads: it must not write, nor show private repositories to everybody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from urllib.parse import SplitResult, urlsplit

import attrs
import trio

from gpustack.errors import BadRequest, Forbidden
from gpustack.remote.http import (
    BadResponse,
    HttpClient,
    RemoteTimeout,
    ResponseTooLarge,
    StreamedResponse,
    open_client_aside,
)
from gpustack.remote.redirect import MOST, REDIRECTS, next_url, refuse_inner

from ..body_stream import OpenedStream
from ..context import HubAccess
from ..request import is_whole
from ..route import PEOPLE, ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import QueryParameter, Text

PUBLIC_HUB = "https://huggingface.co"
HOSTS = frozenset({"huggingface.co", "modelscope.cn", "www.modelscope.cn"})
DELIVERY = (".huggingface.co", ".hf.co", ".modelscope.cn")
"""The hosts that these redirect to for files."""
LARGEST = 16 << 20
WITHIN = 60.0
"""Seconds to the head of the answer, and between two of its pieces."""
_CONNECTION = 256 << 10
"""Bytes in memory while one answer is passed on, whatever its size."""
METHODS = ("GET", "POST", "PUT", "DELETE")

_READING = frozenset({"GET", "HEAD"})
_PASSED_ON = ("accept", "accept-language", "content-type", "if-none-match", "range", "user-agent")
_GIVEN_BACK = (
    "accept-ranges",
    "content-encoding",
    "content-length",
    "content-range",
    "etag",
    "last-modified",
    "link",
    "retry-after",
    "x-error-code",
    "x-error-message",
    "x-linked-etag",
    "x-linked-size",
    "x-repo-commit",
    "x-total-count",
)
# A hub serves uploads of strangers: under our origin they must not be able to run.
_HARMLESS = (
    ("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


@attrs.frozen
class HubTarget:
    """Where a request goes, and whether that is the hub that our token is for."""

    url: str
    is_hub: bool


def target(url: str, hub: HubAccess) -> HubTarget:
    """Where a request for ``url`` goes: to ``HF_ENDPOINT`` or ``MODELSCOPE_ENDPOINT``, where set, in place of the
    public hub.

    Raises ``BadRequest`` for a text that is no URL, ``Forbidden`` for one that is not allowed.
    """
    parts = _split(url)
    endpoint = hub.endpoint or PUBLIC_HUB
    if _origin(parts) == _origin(_split(endpoint)):
        return HubTarget(_put_together(endpoint, parts), is_hub=True)
    if parts.scheme != "https" or parts.port not in (None, 443) or parts.hostname not in HOSTS:
        allowed = ", ".join(sorted(HOSTS | {_split(endpoint).hostname or ""}))
        raise Forbidden(f"Only https addresses of these hosts are fetched: {allowed}")
    if parts.hostname == _split(PUBLIC_HUB).hostname:
        return HubTarget(_put_together(endpoint, parts), is_hub=True)
    if hub.model_scope is not None:
        return HubTarget(_put_together(hub.model_scope, parts), is_hub=False)
    return HubTarget(_put_together(f"https://{parts.hostname}", parts), is_hub=False)


def is_redirect_allowed(url: str, hub: HubAccess) -> bool:
    """Whether a redirect there is followed."""
    parts = _split(url)
    own = [endpoint for endpoint in (hub.endpoint, hub.model_scope) if endpoint]
    if any(_origin(parts) == _origin(_split(endpoint)) for endpoint in own):
        return True
    host = parts.hostname or ""
    return (
        parts.scheme == "https"
        and parts.port in (None, 443)
        and parts.username is None
        and (host in HOSTS or host.endswith(DELIVERY))
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise BadRequest("url: must be an address such as https://huggingface.co/api/models") from error
    odd = any(character <= " " or character in "\\\x7f" for character in url[:64])
    if odd or not parts.scheme or not parts.hostname or parts.username is not None or len(url) > 8192:
        raise BadRequest(
            "url: must be an address such as https://huggingface.co/api/models, without credentials"
        )
    return parts


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _put_together(base: str, parts: SplitResult) -> str:
    query = f"?{parts.query}" if parts.query else ""
    return f"{base.rstrip('/')}{parts.path or '/'}{query}"


async def _proxy(call: ApiCall) -> ApiResponse:
    url = call.query.one("url")
    if not url:
        raise BadRequest("url: is missing")
    hub, method = call.context.models.hub, call.request.method
    wanted = target(url, hub)
    secret: dict[str, str] = {}
    if wanted.is_hub and hub.token and method in _READING and call.caller.is_admin:
        secret["authorization"] = f"Bearer {hub.token}"
    body = None if method in _READING else await call.request.body()
    if call.request.hold is not None:
        call.request.hold.take(_CONNECTION)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(await open_client_aside())
        with trio.move_on_after(WITHIN):
            answer = await _answer(call, client, stack, wanted, secret, body)
            if _announced_length(answer) > LARGEST:
                raise ResponseTooLarge(answer.url, f"answers with more than {LARGEST} bytes")
            return _reply(answer, stack.pop_all())
    raise RemoteTimeout(wanted.url, f"did not answer within {WITHIN:g} s")


async def _answer(
    call: ApiCall,
    client: HttpClient,
    stack: AsyncExitStack,
    wanted: HubTarget,
    secret: Mapping[str, str],
    body: bytes | None,
) -> StreamedResponse:
    """The head of the answer after all redirects. Its connection is open as long as ``stack``."""
    hub, method, headers = call.context.models.hub, call.request.method, _headers(call)
    current, hops, connected = wanted.url, 0, None
    while True:
        # The token goes to the hub's origin alone, not to where that redirects.
        own = secret if _origin(_split(current)) == _origin(_split(wanted.url)) else {}
        async with AsyncExitStack() as this:
            answer = await this.enter_async_context(
                client.stream(
                    method,
                    current,
                    headers={**headers, **own},
                    body=body,
                    timeout=WITHIN,
                    connected=connected,
                )
            )
            if answer.status not in REDIRECTS or method not in _READING:
                stack.push_async_callback(this.pop_all().aclose)
                return answer
        hops += 1
        current = next_url(current, answer.headers.get("location"))
        if hops > MOST or not is_redirect_allowed(current, hub):
            raise BadResponse(wanted.url, f"redirects to {urlsplit(current).hostname}, which is not followed")
        connected = await refuse_inner(current, wanted.url, answer.address)


def _headers(call: ApiCall) -> Mapping[str, str]:
    """The headers that are passed on. ``X-Forwarded-<name>`` takes precedence over the header itself."""
    made = {}
    for name in _PASSED_ON:
        raw = call.request.header(f"x-forwarded-{name}".encode()) or call.request.header(name.encode())
        if raw:
            made[name] = raw.decode("latin-1")
    return made


def _announced_length(answer: StreamedResponse) -> int:
    """The length that the answer announces; 0 when it does not."""
    told = answer.headers.get("content-length", "")
    return int(told) if is_whole(told) else 0


def _reply(answer: StreamedResponse, stack: AsyncExitStack) -> ApiResponse:
    back = [(name, answer.headers[name]) for name in _GIVEN_BACK if name in answer.headers]
    return ApiResponse(
        status=answer.status,
        stream=OpenedStream(stack, _BoundedBody(answer.url, answer.pieces())),
        content_type=answer.headers.get("content-type", "application/octet-stream"),
        headers=(*back, *_HARMLESS),
    )


@attrs.define(eq=False)
class _BoundedBody:
    """Passes pieces on up to ``LARGEST`` bytes; then raises, so that the answer is cut visibly."""

    _url: str
    _pieces: AsyncIterator[bytes]
    _size: int = 0

    def __aiter__(self) -> _BoundedBody:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._pieces)
        self._size += len(piece)
        if self._size > LARGEST:
            raise ResponseTooLarge(self._url, f"answers with more than {LARGEST} bytes")
        return piece


ROUTES = tagged(
    "proxy",
    tuple(
        ApiRoute(
            method=method,
            path="/proxy",
            summary="Ask a model hub (Hugging Face, ModelScope) through the server",
            handler=_proxy,
            allow=PEOPLE,
            action="",  # it changes nothing here
            query=(QueryParameter(name="url", shape=Text(), note="An https address of one of these hubs."),),
        )
        for method in METHODS
    ),
)

"""The client for rare outgoing calls (httpx): errors have names, answers are bounded, secrets are not shown.

Parties that call one server all the time use ``pooled_client.py`` instead.
"""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from json import dumps as as_json
from json import loads as from_json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
import trio

from gpustack.config.proxy import NO_PROXIES
from gpustack.errors import Invalid, Unavailable
from gpustack.nursery.limiter import threads
from gpustack.remote.connection_guard import Connected, ConnectionGuard, answered_from
from gpustack.remote.proxy_transport import (
    AsyncProxyTransport,
    ProxyFault,
    ProxyTransports,
    deepest,
    proxies_of_environment,
)
from gpustack.text import said_by

if TYPE_CHECKING:
    import httpx

ANSWER_LIMIT = 16 << 20
"""The largest answer that is read whole unless the caller says otherwise, in bytes."""


_openings = threads("opening clients", 1)


class RemoteError(Unavailable):
    """A call to another machine failed. ``url`` is without query and credentials, ``fault`` is a clause."""

    def __init__(self, url: str, fault: str, retry_after: float | None = None) -> None:
        self.url = shown(url)
        self.fault = fault
        super().__init__(f"{self.url} {fault}", retry_after)


class RemoteConnectionError(RemoteError):
    """There was no connection, or it was lost: nobody listens, no such name, reset, TLS refused."""


class RemoteTimeout(RemoteError):
    """No connection in time, no byte for too long, or no whole answer within the deadline."""


class BadResponse(RemoteError):
    """The answer violates the protocol, or is not what the caller expects."""


class ResponseTooLarge(RemoteError):
    """The answer exceeds the caller's limit."""


@attrs.frozen(kw_only=True)
class Timeouts:
    """In seconds. ``stall`` is how long a connection may be silent, ``pool`` how long to wait for a free one."""

    connect: float = 10.0
    stall: float = 30.0
    pool: float = 60.0


@attrs.frozen(kw_only=True)
class HttpResponse:
    """An answer read whole. Header names are lower case."""

    url: str = attrs.field(repr=False)
    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    address: str | None = attrs.field(default=None, repr=False)
    """The IP address it came from; ``None`` where a proxy was asked, or it is not known."""

    def json(self) -> Any:
        """The body as JSON; raises BadResponse."""
        try:
            return from_json(self.body)
        except (ValueError, RecursionError) as error:
            raise BadResponse(self.url, f"answered {self.status} with something that is not JSON") from error


@attrs.define(eq=False, kw_only=True)
class StreamedResponse:
    """An answer whose body is still to come; it is read once, in one of two ways."""

    url: str = attrs.field(repr=False)
    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    address: str | None = attrs.field(default=None, repr=False)
    """The IP address it comes from; ``None`` where a proxy was asked, or it is not known."""
    _response: httpx.Response = attrs.field(repr=False)
    _body: AsyncIterator[bytes] | None = attrs.field(default=None, repr=False)

    def pieces(self) -> AsyncIterator[bytes]:
        """The undecoded bytes as they arrive; iterating raises RemoteError."""
        self._body = self._response.aiter_raw()
        return _Body(self.url, self._body)

    async def read(self, limit: int = ANSWER_LIMIT) -> bytes:
        """All of the body, decoded; raises ResponseTooLarge beyond ``limit`` bytes, RemoteError otherwise."""
        body = bytearray()
        self._body = self._response.aiter_bytes(64 << 10)
        with _httpx_errors(self.url):
            async for block in self._body:
                body += block
                if len(body) > limit:
                    raise ResponseTooLarge(self.url, f"answered with more than {limit} bytes")
        return bytes(body)

    async def whole(self, limit: int = ANSWER_LIMIT) -> HttpResponse:
        """The answer read whole; raises as ``read``."""
        body = await self.read(limit)
        return HttpResponse(
            url=self.url, status=self.status, headers=self.headers, body=body, address=self.address
        )

    async def leave(self) -> None:
        """Drop what is still to come.

        httpx' generators are nested in one another, and closing the outermost leaves the others to the garbage
        collector. They unwind properly when they are cancelled while reading, so that is done here.
        """
        if self._body is None:
            return
        with trio.CancelScope() as scope:
            scope.cancel()
            # RuntimeError says that somebody reads it.
            with contextlib.suppress(RemoteError, RuntimeError), _httpx_errors(self.url):
                async for _ in self._body:
                    pass


@attrs.frozen(eq=False)
class _Body:
    """The bytes of a body, with errors as ours. Not a generator: one left suspended is closed by the collector only."""

    url: str
    _source: AsyncIterator[bytes]

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        with _httpx_errors(self.url):
            return await anext(self._source)


@attrs.define(eq=False, repr=False)
class HttpClient:
    """Connections to other machines, made by ``open_client``. Use it as an async context manager.

    Redirects are answers like others; ``redirect.py`` follows them.
    """

    _client: httpx.AsyncClient
    _requests: int = 0

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2.0):
            await self._client.aclose()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        json: object = None,
        limit: int = ANSWER_LIMIT,
        deadline: float = 60.0,
        connected: Connected | None = None,
    ) -> HttpResponse:
        """Ask, and read the whole answer within ``deadline`` seconds and ``limit`` bytes. ``json`` is sent as JSON.

        ``connected`` is as for ``stream``. An error status is an answer. Raises RemoteError. Cancellable at any time.
        """
        if json is not None:
            body = as_json(json).encode()
            headers = {"content-type": "application/json", **(headers or {})}
        with trio.move_on_after(deadline):
            async with self.stream(method, url, headers=headers, body=body, connected=connected) as incoming:
                return await incoming.whole(limit)
        raise RemoteTimeout(self._absolute(url), f"did not answer within {deadline:g} s")

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # patience between bytes, not a limit for the block
        connected: Connected | None = None,
    ) -> AsyncIterator[StreamedResponse]:
        """Ask, and hand out the answer once its head is here. Leaving the block early drops the connection.

        ``timeout`` is how many seconds the other side may be silent, by default the client's ``stall``; the whole may
        take any time. ``connected`` gets the IP address of a connection that is made for this request, before anything
        is sent on it, unless it is one to a proxy; what it raises ends the request. Raises RemoteError.
        """
        import httpx

        self._requests += 1
        whole = self._absolute(url)
        with _httpx_errors(whole):
            wait = self._client.timeout
            if timeout is not None:
                wait = httpx.Timeout(timeout, connect=wait.connect, pool=wait.pool)
            request = self._client.build_request(
                method, url, headers=dict(headers or {}), content=body, timeout=wait
            )
            if connected is not None:
                host = request.url.raw_host.decode("ascii")
                request.extensions["trace"] = ConnectionGuard(host, connected).saw_async
            response = await self._client.send(request, stream=True)
        incoming = StreamedResponse(
            url=str(response.url),
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            address=answered_from(response),
            response=response,
        )
        try:
            yield incoming
        finally:
            await incoming.leave()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2.0), _httpx_errors(whole):
                await response.aclose()

    def _absolute(self, url: str) -> str:
        """``url`` with the client's base URL in front where it is a path."""
        return str(self._client.base_url).rstrip("/") + url if url.startswith("/") else url

    def __repr__(self) -> str:
        return f"<HttpClient, {self._requests} requests made>"


def open_client(
    base_url: str = "",
    *,
    timeouts: Timeouts | None = None,
    headers: Mapping[str, str] | None = None,
    verify: bool | str | ssl.SSLContext = True,
    trust_env: bool = True,
    connections: int = 100,
) -> HttpClient:
    """Make a client. The first call imports httpx, which takes some 100 ms.

    ``verify`` is True for the system's certificates (or SSL_CERT_FILE), a file of certificates, or a context.
    ``trust_env`` honours HTTP_PROXY and the like (``config/proxy.py``); loopback is never reached through a proxy.
    Raises Invalid when SSL_CERT_FILE names no certificates.
    """
    import httpx

    wait = timeouts or Timeouts()
    trust: ssl.SSLContext | bool = (
        verify if isinstance(verify, bool) and not verify else _trusted_context(verify)
    )
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    outlets = ProxyTransports(
        library=httpx,
        make=lambda proxy: httpx.AsyncHTTPTransport(
            verify=trust, trust_env=False, limits=limits, proxy=proxy
        ),
        routes=proxies_of_environment if trust_env else lambda: NO_PROXIES,
        proxy_trust=trust,
    )
    return HttpClient(
        httpx.AsyncClient(
            base_url=base_url,
            timeout=httpx.Timeout(wait.stall, connect=wait.connect, pool=wait.pool),
            headers={"user-agent": "gpustack", "accept-encoding": "identity", **(headers or {})},
            trust_env=False,
            transport=AsyncProxyTransport(outlets),  # type: ignore[arg-type]  # made for blocking libraries too
            follow_redirects=False,
        )
    )


async def open_client_aside() -> HttpClient:
    """``open_client`` in a thread: the import of httpx must not block the event loop of a serving daemon."""
    return await _openings.run(open_client)


def shown(url: str) -> str:
    """``url`` for logs and messages: without query and credentials."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "a malformed address"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{port}{parts.path}" if parts.scheme else parts.path


def trusted() -> ssl.SSLContext:
    """The certificates that we trust: the system's, or those in SSL_CERT_FILE. Raises Invalid."""
    return _trusted_context(True)


def _trusted_context(verify: bool | str | ssl.SSLContext) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        return verify
    if isinstance(verify, str):
        return _context(verify)
    named = os.environ.get("SSL_CERT_FILE") or None
    try:
        return _context(named)
    except OSError as error:
        raise Invalid(
            f"SSL_CERT_FILE names {named}, which holds no certificates ({said_by(error)})"
        ) from error


@functools.lru_cache(maxsize=8)
def _context(cafile: str | None) -> ssl.SSLContext:
    """The context for a file of certificates, cached: reading them takes tens of milliseconds."""
    context = ssl.create_default_context(cafile=cafile)
    if cafile is None and not _has_system_certificates():
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _has_system_certificates() -> bool:
    """Whether the system has any; minimal container images have none."""
    paths = ssl.get_default_verify_paths()  # names only what exists
    file: str | None = paths.cafile
    folder: str | None = paths.capath
    return file is not None or (folder is not None and any(Path(folder).iterdir()))


@contextlib.contextmanager
def _httpx_errors(url: str) -> Iterator[None]:
    """Turn the errors of httpx into ours."""
    import httpx

    try:
        yield
    except ProxyFault as error:
        raise RemoteConnectionError(url, f"cannot be reached: {error}") from error
    except httpx.ConnectTimeout as error:
        raise RemoteTimeout(url, "did not accept a connection in time") from error
    except httpx.PoolTimeout as error:
        raise RemoteTimeout(url, "could not be asked: all connections are busy") from error
    except httpx.TimeoutException as error:
        raise RemoteTimeout(url, "sent nothing for too long") from error
    except httpx.ConnectError as error:
        raise RemoteConnectionError(url, f"cannot be reached ({reason_of(error)})") from error
    except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
        raise RemoteConnectionError(url, f"broke off the connection ({reason_of(error)})") from error
    except httpx.ProxyError as error:
        raise RemoteConnectionError(url, f"cannot be reached through the proxy {reason_of(error)}") from error
    except (httpx.DecodingError, httpx.LocalProtocolError, UnicodeEncodeError) as error:
        raise BadResponse(url, f"cannot be understood ({reason_of(error)})") from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise BadResponse(url, "is not an http or https address") from error


def reason_of(error: Exception) -> str:
    """Why a request failed, as the first cause of the error of a client says it; of a proxy, as we have named it."""
    if type(error).__name__ == "ProxyError":  # httpx is not imported for this
        return said_by(error)
    first = deepest(error)
    return said_by(first) if str(first) else said_by(error)

"""The client for frequent calls to one server, over our own connection pool (``http1/pool.py``).

Same answers and same errors as ``http.py``, at a fraction of the cost. It knows no proxies (the cluster is never
reached through one) and no redirects.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import attrs
import trio

from gpustack.errors import Invalid
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.upstream import UpstreamAddress, UpstreamError, UpstreamResponse, UpstreamTimeout
from gpustack.remote.http import ANSWER_LIMIT, HttpResponse, RemoteConnectionError, RemoteTimeout, trusted

_CONNECT_WITHIN = 10.0


@attrs.frozen(eq=False)
class PooledResponse:
    """An answer whose body is still to come."""

    url: str
    status: int
    _response: UpstreamResponse = attrs.field(repr=False)

    async def read(self, limit: int = ANSWER_LIMIT) -> bytes:
        """All of the body; raises RemoteError, and PayloadTooLarge beyond ``limit`` bytes."""
        try:
            return await self._response.read(limit)
        except UpstreamError as error:
            raise _remote_error(self.url, error) from error

    def pieces(self) -> AsyncIterator[bytes]:
        """The bytes as they arrive; iterating raises RemoteError."""
        return _PooledBody(self.url, self._response)


@attrs.frozen(eq=False)
class _PooledBody:
    """The bytes of a body, with errors as ours. Not a generator: one left suspended is closed by the collector only."""

    _url: str
    _response: UpstreamResponse

    def __aiter__(self) -> _PooledBody:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._response)
        except UpstreamError as error:
            raise _remote_error(self._url, error) from error


@attrs.frozen(eq=False, repr=False)
class PooledClient:
    """Calls to the server at one address, made by ``to``."""

    _pool: ConnectionPool
    _base: str
    _address: UpstreamAddress

    @classmethod
    def to(cls, base: str, pool: ConnectionPool, *, trust: ssl.SSLContext | None = None) -> PooledClient:
        """A client of the server at the URL ``base``; ``trust`` is by default the system's certificates.

        Raises Invalid when ``base`` is not an http or https URL.
        """
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(f"{base!r} is not an http or https address; set --server-url")
        secured = (trust or trusted()) if parts.scheme == "https" else None
        port = parts.port or (443 if secured else 80)
        return cls(pool, base.rstrip("/"), UpstreamAddress(parts.hostname, port, tls=secured))

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        deadline: float = 60.0,
    ) -> HttpResponse:
        """Ask, and read the whole answer within ``deadline`` seconds. An error status is an answer.

        Raises RemoteError. Cancellable at any time.
        """
        with trio.move_on_after(deadline):
            async with self._open(method, path, headers, body, deadline) as response:
                arriving = PooledResponse(self._base + path, response.status, response)
                read = await arriving.read()
                told = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
                return HttpResponse(url=arriving.url, status=response.status, headers=told, body=read)
        raise RemoteTimeout(self._base + path, f"did not answer within {deadline:g} s")

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float = 60.0,  # noqa: ASYNC109  # patience between bytes, not a limit for the block
    ) -> AsyncIterator[PooledResponse]:
        """Ask, and hand out the answer once its head is here; it may be silent for ``timeout`` seconds at a time.

        Raises RemoteError. Cancellable at any time.
        """
        async with self._open(method, path, headers, body, timeout) as response:
            yield PooledResponse(self._base + path, response.status, response)

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, headers: Mapping[str, str] | None, body: bytes | None, patience: float
    ) -> AsyncIterator[UpstreamResponse]:
        fields = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()
        ]
        call = self._pool.request(
            self._address,
            method,
            path.encode("ascii"),
            fields,
            body,
            connect_timeout=min(_CONNECT_WITHIN, patience),
            first_byte_timeout=patience,
            idle_timeout=patience,
        )
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(call)
            except UpstreamError as error:
                raise _remote_error(self._base + path, error) from error
            yield response

    def __repr__(self) -> str:
        return f"<PooledClient of {self._base}>"


def _remote_error(url: str, error: UpstreamError) -> RemoteConnectionError | RemoteTimeout:
    if isinstance(error, UpstreamTimeout):
        return RemoteTimeout(url, "sent nothing for too long")
    return RemoteConnectionError(url, f"cannot be reached ({error})")

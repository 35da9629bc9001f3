"""Transports for httpx that send each request directly, or through the proxy that the environment names for it.

httpx reads only some of the forms that people write into ``NO_PROXY``, so the choice is made here (by
``config/proxy.py``), for blocking and for async clients.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import trio

from gpustack.config.proxy import ProxyAddress, ProxyRoutes, read_proxies
from gpustack.errors import Unavailable
from gpustack.remote.connection_guard import DIRECT
from gpustack.text import said_by

_HANDSHAKE = 20.0
"""Seconds that a SOCKS proxy may be silent during its handshake; the library would wait for ever."""


class ProxyFault(Unavailable):
    """A proxy that cannot be used; the sentence names the environment variable."""


def proxies_of_environment() -> ProxyRoutes:
    """The proxies of the process environment as it is now."""
    return read_proxies(os.environ)


@attrs.define(eq=False)
class ProxyTransports:
    """The transports of one HTTP library, one per proxy, made when first needed.

    ``library`` is the module (httpx, or the one that the hub's library uses), since each accepts only its own classes.
    ``proxy_trust`` judges the certificates of https proxies.
    """

    library: Any
    make: Callable[[Any], Any]
    """Makes a transport; its argument is a ``library.Proxy`` or None."""
    routes: Callable[[], ProxyRoutes]
    proxy_trust: Any = None
    _made: dict[ProxyAddress | None, Any] = attrs.field(factory=dict)

    def of(self, url: Any) -> tuple[Any, ProxyAddress | None]:
        """The transport for ``url`` (a ``library.URL``), and the proxy that it goes through. Raises ProxyFault."""
        host = url.raw_host.decode("ascii", "replace")
        proxy = self.routes().route(url.scheme, host, url.port)
        if proxy is not None and proxy.fault is not None:
            raise ProxyFault(proxy.fault)
        found = self._made.get(proxy)
        if found is None:
            found = self._made[proxy] = self.make(None if proxy is None else self._library_proxy(proxy))
        return found, proxy

    def _library_proxy(self, proxy: ProxyAddress) -> Any:
        login = None if proxy.user is None else (proxy.user, proxy.password or "")
        # An https:// proxy presents a certificate of its own.
        trust = self.proxy_trust if proxy.scheme == "https" else None
        return self.library.Proxy(proxy.shown, auth=login, ssl_context=trust)

    @property
    def made(self) -> list[Any]:
        return list(self._made.values())


@attrs.frozen(eq=False)
class AsyncProxyTransport:
    """The transport of an async client."""

    outlets: ProxyTransports

    async def handle_async_request(self, request: Any) -> Any:
        transport, proxy = self.outlets.of(request.url)
        if proxy is None:
            response = await transport.handle_async_request(request)
        else:
            with _proxy_errors(self.outlets.library, proxy):
                response = await self._through(transport, proxy, request)
        response.extensions[DIRECT] = proxy is None
        return response

    async def _through(self, transport: Any, proxy: ProxyAddress, request: Any) -> Any:
        if not proxy.is_socks:
            return await transport.handle_async_request(request)
        wait: Mapping[str, float | None] = request.extensions.get("timeout", {})
        dialled = _ProxyConnection(request.extensions.get("trace"))
        request.extensions["trace"] = dialled.saw_async
        try:
            with trio.move_on_after(_HANDSHAKE + (wait.get("read") or _HANDSHAKE)):
                return await transport.handle_async_request(request)
        except BaseException:
            if dialled.stream is not None:
                await trio.aclose_forcefully(dialled.stream)
            raise
        if dialled.stream is not None:
            await trio.aclose_forcefully(dialled.stream)
        raise self.outlets.library.ConnectTimeout("the proxy sent nothing for too long", request=request)

    async def __aenter__(self) -> AsyncProxyTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        for transport in self.outlets.made:
            await transport.aclose()


@attrs.frozen(eq=False)
class BlockingProxyTransport:
    """The transport of a blocking client."""

    outlets: ProxyTransports

    def handle_request(self, request: Any) -> Any:
        transport, proxy = self.outlets.of(request.url)
        if proxy is None:
            response = transport.handle_request(request)
        else:
            dialled = _ProxyConnection(request.extensions.get("trace"))
            request.extensions["trace"] = dialled.saw
            try:
                with _proxy_errors(self.outlets.library, proxy):
                    response = transport.handle_request(request)
            except BaseException:
                if dialled.stream is not None:
                    dialled.stream.close()
                raise
        response.extensions[DIRECT] = proxy is None
        return response

    def __enter__(self) -> BlockingProxyTransport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for transport in self.outlets.made:
            transport.close()


@attrs.define(eq=False)
class _ProxyConnection:
    """Remembers the connection to a proxy, to close it on failure: the library leaves it open then."""

    trace: Any
    stream: Any = None

    def saw(self, event: str, about: Mapping[str, Any]) -> None:
        self._remember(event, about)
        if self.trace is not None:
            self.trace(event, about)

    async def saw_async(self, event: str, about: Mapping[str, Any]) -> None:
        self._remember(event, about)
        if self.trace is not None:
            await self.trace(event, about)

    def _remember(self, event: str, about: Mapping[str, Any]) -> None:
        if event.endswith(".connect_tcp.complete"):
            self.stream = about["return_value"]


@contextlib.contextmanager
def _proxy_errors(library: Any, proxy: ProxyAddress) -> Iterator[None]:
    """Turn errors of the library into its ProxyError where the proxy is at fault. Some of them are no HTTP errors."""
    import socksio

    try:
        yield
    except (socksio.SOCKSError, AssertionError) as error:  # asserted of what a proxy answers
        raise library.ProxyError(f"{_described(proxy)} does not answer like a SOCKS proxy") from error
    except library.ProxyError as error:
        raise library.ProxyError(f"{_described(proxy)}: {said_by(error)}") from error
    except library.ConnectError as error:
        beneath = deepest(error)
        if isinstance(beneath, ssl.SSLError) and proxy.scheme != "https":
            raise  # TLS with the server behind the proxy
        raise library.ProxyError(f"{_described(proxy)}: {said_by(beneath)}") from error
    except library.ConnectTimeout as error:
        raise library.ProxyError(f"{_described(proxy)} does not answer in time") from error


def deepest(error: BaseException) -> BaseException:
    """The first cause of ``error``: ``Connection refused`` rather than ``All connection attempts failed``."""
    found = error
    for _ in range(10):
        below = found.__cause__ or found.__context__
        if isinstance(below, BaseExceptionGroup):
            below = below.exceptions[0]
        if below is None:
            break
        found = below
    return found


def _described(proxy: ProxyAddress) -> str:
    return f"{proxy.shown}, of {proxy.variable}"


@attrs.frozen(eq=False)
class TimeoutBackend:
    """The network backend of a blocking library, with a timeout where it has none: in the SOCKS handshake."""

    _backend: Any

    def connect_tcp(self, *args: Any, **named: Any) -> Any:
        return _TimeoutStream(self._backend.connect_tcp(*args, **named))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


@attrs.frozen(eq=False)
class _TimeoutStream:
    _stream: Any

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return bytes(self._stream.read(max_bytes, _HANDSHAKE if timeout is None else timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _HANDSHAKE if timeout is None else timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **named: Any) -> Any:
        return self._stream.start_tls(*args, **named)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

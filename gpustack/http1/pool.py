"""The connection pool: requests to upstreams over kept-alive connections."""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import Final

import attrs
import trio

from gpustack.http1.fields import TOKEN, Fields, known_lines
from gpustack.http1.reactor import Reactor, new_reactor
from gpustack.http1.upstream import UpstreamAddress, UpstreamConnection
from gpustack.http1.upstream_exchange import RequestBody, UpstreamExchange, UpstreamRequest

_CONTROLS: Final = bytes(range(0x21)) + b"\x7f"
_SWEEP: Final = 1.0
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


@attrs.frozen(kw_only=True)
class PoolLimits:
    """How many idle connections are kept, and for how many seconds."""

    idle_per_address: int = 64
    idle: int = 1024
    idle_seconds: float = 60.0


class ConnectionPool:
    """A service: requests can be made while ``run`` is running. No request waits for another."""

    def __init__(
        self,
        limits: PoolLimits | None = None,
        *,
        name: str = "upstream-pool",
        reactor: Reactor | None = None,
    ) -> None:
        self.name = name
        self.limits = limits or PoolLimits()
        self.reactor = reactor or new_reactor()
        self.in_flight = 0
        self._owns_reactor = reactor is None
        self._idle: dict[UpstreamAddress, list[UpstreamConnection]] = {}
        self._idle_count = 0

    def __repr__(self) -> str:
        return f"<ConnectionPool {self.name}, {self.in_flight} requests in flight, {self._idle_count} idle connections>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Closes what has been idle for too long, until cancelled; then closes every idle connection."""
        async with trio.open_nursery() as nursery:
            if self._owns_reactor:
                await nursery.start(self.reactor.run)
            task_status.started()
            try:
                while True:
                    await trio.sleep(_SWEEP)
                    self._drop_older_than(self.reactor.now - self.limits.idle_seconds)
            finally:
                self._drop_older_than(inf)
                nursery.cancel_scope.cancel()

    def request(
        self,
        address: UpstreamAddress,
        method: str,
        target: bytes,
        headers: Fields = (),
        body: RequestBody = None,
        *,
        content_length: int | None = None,
        connect_timeout: float = 5.0,
        first_byte_timeout: float = 600.0,
        idle_timeout: float = 300.0,
        fresh: bool = False,
        redial: bool = True,
    ) -> UpstreamExchange:
        """``async with pool.request(...) as response``. The connection is kept if the response was read whole.

        ``headers`` without those that the pool sets: content-length, transfer-encoding, connection; ``host``
        is added when absent. An iterator as body is sent chunked unless ``content_length`` says how much it
        gives. ``first_byte_timeout`` runs from the end of the request, ``idle_timeout`` between two pieces.
        A kept connection that turns out dead before the first byte of the response is replaced once, unless
        the body is an iterator: then a fresh one is used from the start, as with ``fresh``. Without ``redial`` it is
        not replaced: the request may have been what closed it.
        Raises ConnectFailed, UpstreamClosed, UpstreamTimeout, UpstreamProtocolError, ValueError for headers
        that cannot be sent. May be cancelled at any point; the connection is closed then.
        """
        if not self.reactor.running:
            raise RuntimeError("the pool is not running")
        ask = UpstreamRequest(
            address=address,
            method=method,
            head=request_head(address, method, target, headers, body, content_length),
            body=body,
            content_length=content_length,
            connect_timeout=connect_timeout,
            first_byte_timeout=first_byte_timeout,
            idle_timeout=idle_timeout,
            fresh=fresh,
            redial=redial,
        )
        return UpstreamExchange(self, ask)

    # --- connections ---

    def take(self, address: UpstreamAddress) -> UpstreamConnection | None:
        """The most recently used idle connection that is not known to be dead.

        One that sent something before the next request is not used again: it would be taken for the next answer.
        """
        idle = self._idle.get(address)
        while idle:
            upstream = idle.pop()
            self._idle_count -= 1
            upstream.stream.on_hangup = None
            if upstream.stream.is_untouched():
                return upstream
            upstream.close()
        return None

    def give_back(self, upstream: UpstreamConnection) -> None:
        """Keeps a connection for the next request."""
        limits = self.limits
        idle = self._idle.setdefault(upstream.address, [])
        full = len(idle) >= limits.idle_per_address or self._idle_count >= limits.idle
        if full or upstream.stream.ended or not self.reactor.running:
            upstream.close()
            return
        upstream.be_patient(False)
        upstream.idle_since = self.reactor.now
        upstream.stream.on_hangup = lambda: self._drop(upstream)
        idle.append(upstream)
        self._idle_count += 1

    def _drop(self, upstream: UpstreamConnection) -> None:
        idle = self._idle.get(upstream.address, [])
        if upstream in idle:
            idle.remove(upstream)
            self._idle_count -= 1
        upstream.close()

    def _drop_older_than(self, instant: float) -> None:
        for address, idle in list(self._idle.items()):
            for upstream in [upstream for upstream in idle if upstream.idle_since < instant]:
                self._drop(upstream)
            if not idle:
                del self._idle[address]


def request_head(
    address: UpstreamAddress,
    method: str,
    target: bytes,
    headers: Fields,
    body: RequestBody,
    content_length: int | None = None,
) -> bytes:
    """The bytes of a request up to its body. Raises ValueError for what would break it."""
    verb = method.encode()
    if not target or target.translate(None, _CONTROLS) != target or verb.translate(None, TOKEN):
        raise ValueError("the request line is malformed")
    lines = known_lines(headers)
    host = b"" if b"\nhost:" in (b"\n" + lines).lower() else _host_line(address)
    framing = _framing_line(method, body, content_length)
    return b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (verb, target, host, lines, framing)


def _framing_line(method: str, body: RequestBody, content_length: int | None) -> bytes:
    if body is None:
        return b"content-length: 0\r\n" if method in _WITH_BODY else b""
    if isinstance(body, bytes):
        return b"content-length: %d\r\n" % len(body)
    if content_length is not None:
        return b"content-length: %d\r\n" % content_length
    return b"transfer-encoding: chunked\r\n"


@lru_cache(maxsize=256)
def _host_line(address: UpstreamAddress) -> bytes:
    host = b"localhost" if address.unix is not None else str(address).encode("ascii", "replace")
    return b"host: %b\r\n" % host

"""The client of a worker whose cluster has several servers: a call that one does not answer goes to the next."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import attrs
import trio

from gpustack.nursery.wake import AsyncValue
from gpustack.remote.http import HttpResponse, RemoteConnectionError, RemoteError, RemoteTimeout
from gpustack.remote.pooled_client import PooledClient, PooledResponse
from gpustack.remote.redirect import address_of, is_loopback, names_no_machine

MOST = 16
"""The most servers that are remembered besides the one at home."""
_LONGEST = 300
_SHUN_FOR = 60.0
"""Seconds for which a server that failed is asked after the others; then it takes its old place again."""
_BEGINS_WITHIN = 15.0
_UNAVAILABLE = 503


def believable(url: str, home: str) -> str | None:
    """``url``, trimmed, if the server at ``home`` may name it as another server; else ``None``.

    Calls there carry our credential: so not without TLS where ``home`` has it, not to this machine unless ``home`` is
    on it, and not to metadata services, multicast or reserved addresses.
    """
    try:
        parts, came = urlsplit(url), urlsplit(home)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return None
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        return None
    if parts.scheme not in ("http", "https") or (came.scheme == "https" and parts.scheme != "https"):
        return None
    bare = not parts.query and not parts.fragment and parts.username is None and parts.path in ("", "/")
    if not host or not bare or "?" in url or "#" in url or parts.port == 0:
        return None
    if is_loopback(host) and not is_loopback(came.hostname or ""):
        return None
    return None if _is_no_machine(host) else f"{parts.scheme}://{parts.netloc}"


def _is_no_machine(host: str) -> bool:
    address = address_of(host)
    return names_no_machine(host) or (address is not None and (address.is_link_local or address.is_reserved))


@attrs.define(eq=False, repr=False)
class FailoverClient:
    """As ``PooledClient``, but a call that one server does not answer goes to the next; ``learn`` names the servers.

    The one at ``home`` comes first while it answers, then the others in an order that is random for each worker, so
    that the workers of a dead server spread over the rest. A call may take effect twice: on a server that could not
    answer any more, and on the next one.
    """

    _home: str
    _open: Callable[[str], PooledClient]
    _rng: random.Random
    _clients: dict[str, PooledClient] = attrs.field(factory=dict)
    """By URL; the one at home first, the others in the order of asking."""
    _failed: dict[str, float] = attrs.field(factory=dict)
    """When a server failed last, by URL; removed as soon as it answers."""
    _answering: AsyncValue[str] = attrs.field(factory=lambda: AsyncValue(""))
    _streaming: str | None = None

    def __attrs_post_init__(self) -> None:
        self._clients[self._home] = self._open(self._home)

    @property
    def others(self) -> tuple[str, ...]:
        """The URLs of the servers besides the one at home, in the order of asking."""
        return tuple(url for url in self._clients if url != self._home)

    def learn(self, urls: Iterable[str]) -> bool:
        """Replace the known servers; URLs that are not ``believable`` are ignored. Returns whether anything changed."""
        told = dict.fromkeys(found for url in urls if (found := believable(url, self._home)) is not None)
        wanted = [url for url in told if url != self._home][:MOST]
        fresh = [url for url in wanted if url not in self._clients]
        gone = [url for url in self.others if url not in wanted]
        if not fresh and not gone:
            return False
        for url in gone:
            del self._clients[url]
            self._failed.pop(url, None)
        others = [*self.others, *fresh]
        self._rng.shuffle(others)
        kept = {url: self._clients.get(url) or self._open(url) for url in others}
        self._clients = {self._home: self._clients[self._home], **kept}
        return True

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        deadline: float = 60.0,
    ) -> HttpResponse:
        """As that of ``PooledClient``; all servers together have ``deadline`` seconds.

        A server that answers 503 counts as failed while there is another. Raises the failure of the first one asked.
        """
        until = trio.current_time() + deadline
        failure: RemoteError | None = None
        refusal: HttpResponse | None = None
        turn = self._order()
        for place, (url, client) in enumerate(turn):
            share = max(until - trio.current_time(), 0.0) / (len(turn) - place)
            try:
                reply = await client.request(method, path, headers=headers, body=body, deadline=share)
            except RemoteError as error:
                self._note_failure(url)
                failure = failure or error
                continue
            if reply.status == _UNAVAILABLE and len(turn) > 1:
                self._note_failure(url)
                refusal = refusal or reply
                continue
            self._failed.pop(url, None)
            if self._answering.value != url and url in self._clients:
                self._answering.set(url)
            return reply
        if refusal is not None:
            return refusal
        assert failure is not None
        raise failure

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
        """As that of ``PooledClient``, from the first server that begins to answer within 15 s.

        A server that answers 503 counts as failed while there is another.
        """
        failure: RemoteError | None = None
        turn = self._order()
        for url, client in turn:
            began = trio.current_time()
            async with AsyncExitStack() as stack:
                entering = client.stream(method, path, headers=headers, body=body, timeout=timeout)
                try:
                    with trio.move_on_after(_BEGINS_WITHIN) as patience:
                        arriving = await stack.enter_async_context(entering)
                    if patience.cancelled_caught:
                        raise RemoteTimeout(
                            url + path, f"did not begin to answer within {_BEGINS_WITHIN:g} s"
                        )
                    if arriving.status == _UNAVAILABLE and len(turn) > 1:
                        raise RemoteConnectionError(url + path, "cannot serve now (503)")
                except RemoteError as error:
                    self._note_failure(url)
                    failure = failure or error
                    continue
                self._note_stream(url, began)
                try:
                    yield arriving
                finally:
                    self._streaming = None
                return
        assert failure is not None
        raise failure

    def _note_stream(self, url: str, began: float) -> None:
        """Note the server that streams. It counts as answering unless another call to it failed meanwhile."""
        self._streaming = url
        answers = url in self._clients and self._failed.get(url, began) <= began
        if answers:
            self._failed.pop(url, None)
        self._answering.set(url if answers else self._answering.value)

    async def turned(self) -> None:
        """Return once another server answers requests than the one that streams: that one may be dead. Cancellable."""
        revision = self._answering.revision
        while self._streaming is None or self._answering.value in ("", self._streaming):
            revision, _ = await self._answering.changed(revision)

    def _order(self) -> list[tuple[str, PooledClient]]:
        """The servers in the order to ask: those that failed lately come last, the longest ago first.

        With their clients, since ``learn`` may remove a server while another is asked.
        """
        now = trio.current_time()
        shunned = {url: at for url, at in self._failed.items() if now - at < _SHUN_FOR}
        good = [url for url in self._clients if url not in shunned]
        return [(url, self._clients[url]) for url in (*good, *sorted(shunned, key=lambda url: shunned[url]))]

    def _note_failure(self, url: str) -> None:
        if url in self._clients:  # else ``learn`` removed it meanwhile
            self._failed[url] = trio.current_time()

    def __repr__(self) -> str:
        more, answering = len(self._clients) - 1, self._answering.value or "none"
        return f"<FailoverClient: {self._home} and {more} more, {answering} answers>"

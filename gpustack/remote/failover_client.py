"""Calls to whichever server of a cluster answers: the one that was named, or those that it told of."""

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
"""Servers that are remembered beside the one that was named."""
_LONGEST = 300
_SHUN_FOR = 60.0
"""Seconds for which one that did not answer is asked after the others. Then it may have its clients back."""
_BEGINS_WITHIN = 15.0
_UNAVAILABLE = 503


def believable(url: str, home: str) -> str | None:
    """``url``, trimmed, if a server reached at ``home`` may send us there; else ``None``.

    Whatever is said there carries our credential: never without TLS where we came with it, never to a program of this
    machine unless the server is one, and to no address that is no machine's.
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
    return None if _is_nobody(host) else f"{parts.scheme}://{parts.netloc}"


def _is_nobody(host: str) -> bool:
    address = address_of(host)
    return names_no_machine(host) or (address is not None and (address.is_link_local or address.is_reserved))


@attrs.define(eq=False, repr=False)
class FailoverClient:
    """As ``PooledClient``, but what one server does not answer is asked of the next; ``learn`` says who there is.

    The one at ``home`` comes first while it answers, the others in an order that chance gave to each of us: the
    clients of a server that is gone spread over those that are left. What is asked may be done twice, by a server
    that did it and could not say so.
    """

    _home: str
    _open: Callable[[str], PooledClient]
    _rng: random.Random
    _clients: dict[str, PooledClient] = attrs.field(factory=dict)
    """By address; the one at home first, the others in the order of asking."""
    _failed: dict[str, float] = attrs.field(factory=dict)
    """When one did not answer, by address; as soon as it does, that is forgotten."""
    _answering: AsyncValue[str] = attrs.field(factory=lambda: AsyncValue(""))
    _streaming: str | None = None

    def __attrs_post_init__(self) -> None:
        self._clients[self._home] = self._open(self._home)

    @property
    def others(self) -> tuple[str, ...]:
        """The servers known beside the one at home, in the order of asking."""
        return tuple(url for url in self._clients if url != self._home)

    def learn(self, urls: Iterable[str]) -> bool:
        """These are the servers now. What is not ``believable`` is passed over; returns whether anything is new."""
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
        """As that of ``PooledClient``; all servers together get ``deadline`` seconds.

        One that answers 503 is as good as none while there is another. Raises what the first one's failure was.
        """
        until = trio.current_time() + deadline
        failure: RemoteError | None = None
        refusal: HttpResponse | None = None
        turn = self._in_turn()
        for place, (url, client) in enumerate(turn):
            share = max(until - trio.current_time(), 0.0) / (len(turn) - place)
            try:
                reply = await client.request(method, path, headers=headers, body=body, deadline=share)
            except RemoteError as error:
                self._has_failed(url)
                failure = failure or error
                continue
            if reply.status == _UNAVAILABLE and len(turn) > 1:
                self._has_failed(url)
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
        """As that of ``PooledClient``, of the first server that begins to answer, and not with 503 while there is
        another."""
        failure: RemoteError | None = None
        turn = self._in_turn()
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
                    self._has_failed(url)
                    failure = failure or error
                    continue
                self._streams(url, began)
                try:
                    yield arriving
                finally:
                    self._streaming = None
                return
        assert failure is not None
        raise failure

    def _streams(self, url: str, began: float) -> None:
        """It answers, unless it failed to while the stream began: ``turned`` is to see that."""
        self._streaming = url
        answers = url in self._clients and self._failed.get(url, began) <= began
        if answers:
            self._failed.pop(url, None)
        self._answering.set(url if answers else self._answering.value)

    async def turned(self) -> None:
        """Return once requests are answered by another server than the one that streams: that one may be dead."""
        revision = self._answering.revision
        while self._streaming is None or self._answering.value in ("", self._streaming):
            revision, _ = await self._answering.changed(revision)

    def _in_turn(self) -> list[tuple[str, PooledClient]]:
        """Whom to ask, in that order: those that failed lately last, the longest ago first.

        With their clients: while one is asked, ``learn`` may forget the next.
        """
        now = trio.current_time()
        shunned = {url: at for url, at in self._failed.items() if now - at < _SHUN_FOR}
        good = [url for url in self._clients if url not in shunned]
        return [(url, self._clients[url]) for url in (*good, *sorted(shunned, key=lambda url: shunned[url]))]

    def _has_failed(self, url: str) -> None:
        if url in self._clients:  # else forgotten while it was asked
            self._failed[url] = trio.current_time()

    def __repr__(self) -> str:
        more, answering = len(self._clients) - 1, self._answering.value or "none"
        return f"<SeveralServers: {self._home} and {more} more, {answering} answers>"

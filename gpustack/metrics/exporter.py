"""The exporter: serves pages of metrics. One observation of the state serves all scrapes within its lifetime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs
import orjson
import trio
from prometheus_client.metrics_core import Metric as Family

from gpustack.http1.exchange import Exchange
from gpustack.http1.server import ServerLimits
from gpustack.nursery.limiter import ThreadLimiter, threads
from gpustack.nursery.wake import AsyncValue, Wake

from .render import PageFormat, format_of, render

S = TypeVar("S")

LIMITS = ServerLimits(connections=256, connections_per_address=None)
"""The limits of an exporter's port: it serves a few scrapers, whose requests have no bodies."""
_WITHIN = 30.0
_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]
_PLAIN = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
_JSON = [(b"content-type", b"application/json")]


@attrs.define(eq=False)
class _Observation(Generic[S]):
    """The state at one moment (``at``, in Trio's clock), and the pages rendered from it so far."""

    state: S
    at: float
    pages: dict[tuple[str, PageFormat], bytes] = attrs.field(factory=dict)


@attrs.define(eq=False, repr=False)
class Exporter(Generic[S]):
    """A service that observes the state, and an HTTP handler. It observes nothing while nobody scrapes."""

    name: str
    _look: Callable[[], Awaitable[S]]
    """Observes the state, in the Trio thread; must not raise."""
    _pages: Mapping[str, Callable[[S], list[Family]]]
    """By path: makes the families of a page from the state; called in a thread."""
    _documents: Mapping[str, Callable[[], Any]] = attrs.field(factory=dict)
    """By path: makes a JSON document, in the Trio thread."""
    _text_only: frozenset[str] = frozenset()
    """Paths of pages with text that engines wrote, which may violate OpenMetrics: always in the plain format."""
    _relays: Mapping[str, Callable[[], Awaitable[bytes | None]]] = attrs.field(factory=dict)
    """By path: asks another program for its page, in the Trio thread; ``None`` while there is none."""
    lifetime: float = 1.0
    """Seconds for which an observation is used."""
    _latest: AsyncValue[_Observation[S] | None] = attrs.field(factory=lambda: AsyncValue(None))
    _asked: Wake = attrs.field(factory=Wake)
    _threads: ThreadLimiter = attrs.field(factory=lambda: threads("metrics", 1))

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Observe whenever somebody asks, one observation at a time, until cancelled."""
        task_status.started()
        while True:
            await self._asked.wait()
            if self._fresh() is None:
                at = trio.current_time()
                self._latest.set(_Observation(await self._look(), at))

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request. Cancellable at any time."""
        head, path = exchange.head, exchange.head.path.rstrip("/")
        if path not in self._pages and path not in self._documents and path not in self._relays:
            known = ", ".join((*self._pages, *self._documents, *self._relays))
            await exchange.respond(404, _TEXT, f"There is nothing here; see {known}\n".encode())
        elif head.method not in ("GET", "HEAD"):
            await exchange.respond(405, [*_TEXT, (b"allow", b"GET, HEAD")], b"Metrics are only read\n")
        elif path in self._documents:
            await exchange.respond(200, _JSON, orjson.dumps(self._documents[path]()))
        elif path in self._relays:
            await self._relay(exchange, path)
        else:
            await self._answer(exchange, path)

    async def _answer(self, exchange: Exchange, path: str) -> None:
        head = exchange.head
        form = format_of(head.get(b"accept"), head.get(b"accept-encoding"))
        if path in self._text_only:
            form = attrs.evolve(form, openmetrics=False)
        with trio.move_on_after(_WITHIN) as patience:
            page = await self.page(path, form)
        if patience.cancelled_caught:
            await exchange.respond(503, _TEXT, b"The metrics were not made in time\n")
        else:
            await exchange.respond(200, form.headers, page)

    async def _relay(self, exchange: Exchange, path: str) -> None:
        page = await self._relays[path]()
        if page is None:
            await exchange.respond(503, _TEXT, b"What these metrics are of does not answer\n")
        else:
            await exchange.respond(200, _PLAIN, page)

    async def page(self, path: str, form: PageFormat) -> bytes:
        """The page from an observation that is at most ``lifetime`` seconds old. Cancellable."""
        look = self._fresh() or await self._next_observation()
        made = look.pages.get((path, form))
        if made is None:
            families = self._pages[path]
            made = await self._threads.run(lambda: render(families(look.state), form), abandon=True)
            look.pages[path, form] = made
        return made

    def _fresh(self) -> _Observation[S] | None:
        look = self._latest.value
        return look if look is not None and trio.current_time() - look.at < self.lifetime else None

    async def _next_observation(self) -> _Observation[S]:
        revision = self._latest.revision
        self._asked.wake()
        _, look = await self._latest.changed(revision)
        assert look is not None
        return look

    def __repr__(self) -> str:
        look = self._latest.value
        made = "nothing asked yet" if look is None else f"{len(look.pages)} pages of the last look"
        return f"<Exporter {self.name}: {made}>"

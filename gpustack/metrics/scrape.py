"""Scrapes the engines on this machine, over our own pool: bounded in size, time and number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import trio

from gpustack.errors import PayloadTooLarge
from gpustack.http1.fields import Fields
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.upstream import UpstreamAddress, UpstreamError

_LARGEST = 2 << 20
_WITHIN = 3.0
_AT_ONCE = 8
_HAS_NONE = frozenset({404, 405, 501})


@attrs.frozen(kw_only=True)
class ScrapeTarget:
    """An engine that serves an instance on this machine."""

    worker_id: int
    worker_name: str
    model_id: int
    model_name: str
    instance_id: int
    instance_name: str
    runtime: str
    version: str | None = None
    described: Mapping[str, str] | None = None
    """Families of the engine → families of ours, as its administrators' backend says; ``None`` if it is of none."""
    port: int
    fields: Fields = attrs.field(default=(), repr=False)
    """Headers with the key of the engine."""

    @property
    def labels(self) -> tuple[object, ...]:
        """The values of the labels that runtime metrics have."""
        return (
            self.worker_id,
            self.worker_name,
            self.model_id,
            self.model_name,
            self.instance_id,
            self.instance_name,
            self.runtime,
        )


@attrs.frozen
class ScrapeResult:
    """``page`` is ``None`` if the engine did not answer properly, and empty if it has no metrics."""

    target: ScrapeTarget
    page: bytes | None


async def scrape(pool: ConnectionPool, targets: Sequence[ScrapeTarget]) -> tuple[ScrapeResult, ...]:
    """The pages of all targets, in their order. Takes at most 3 s for every eight targets. Cancellable."""
    pages: dict[int, bytes | None] = {}
    turn = trio.CapacityLimiter(_AT_ONCE)

    async def one(place: int) -> None:
        async with turn:
            pages[place] = await scrape_page(pool, targets[place].port, targets[place].fields)

    async with trio.open_nursery() as nursery:
        for place in range(len(targets)):
            nursery.start_soon(one, place)
    return tuple(ScrapeResult(target, pages[place]) for place, target in enumerate(targets))


async def scrape_page(pool: ConnectionPool, port: int, fields: Fields = ()) -> bytes | None:
    """The metrics of a program on this machine; ``None`` if it does not answer properly within 3 s, and empty if it has
    none. Cancellable."""
    with trio.move_on_after(_WITHIN):
        try:
            address = UpstreamAddress("127.0.0.1", port)
            async with pool.request(address, "GET", b"/metrics", fields) as response:
                if response.status == 200:
                    return await response.read(_LARGEST)
                return b"" if response.status in _HAS_NONE else None
        except (UpstreamError, PayloadTooLarge):
            return None
    return None

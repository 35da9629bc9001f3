"""Asks an engine on the loopback whether it is ready, and later whether it still lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from gpustack.engines.engine import Probe
from gpustack.http1.fault import UpstreamError
from gpustack.http1.pool import Pool
from gpustack.http1.upstream import Address

_ANSWER_LIMIT = 1 << 20


@attrs.frozen
class Prober:
    """Probes over the worker's own connection pool."""

    _pool: Pool

    async def answers(self, port: int, probe: Probe) -> bool:
        """One GET: whether it came back with 200 in time."""
        with trio.move_on_after(probe.timeout):
            try:
                async with self._pool.request(
                    Address("127.0.0.1", port), "GET", probe.path.encode()
                ) as response:
                    await response.read(_ANSWER_LIMIT)
                    return response.status == 200
            except UpstreamError:
                return False
        return False

    async def until_ready(self, port: int, probe: Probe) -> None:
        """Return at the first yes. Waits for ever: the caller sets the deadline."""
        while not await self.answers(port, probe):  # noqa: ASYNC110  an engine cannot tell us
            await trio.sleep(probe.period)

    async def until_dead(
        self, port: int, probe: Probe, on_change: Callable[[bool], None] | None = None
    ) -> None:
        """Return after ``probe.failures`` refusals in a row."""
        refused = 0
        while refused < probe.failures:
            await trio.sleep(probe.period)
            refused = 0 if await self.answers(port, probe) else refused + 1
            if on_change is not None:
                on_change(refused == 0)


async def first_of(*waits: Callable[[], Awaitable[None]]) -> int:
    """Run all, return the index of the first to return; the others are cancelled."""
    winner: list[int] = []

    async with trio.open_nursery() as nursery:

        async def run(index: int, wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            winner.append(index)
            nursery.cancel_scope.cancel()

        for index, wait in enumerate(waits):
            nursery.start_soon(run, index, wait)
    return winner[0]

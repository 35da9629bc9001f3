"""Asks an engine on the loopback whether it is ready, and later whether it still lives."""

from __future__ import annotations

from urllib.parse import quote

import attrs
import trio

from gpustack.engines.engine import Probe
from gpustack.errors import PayloadTooLarge
from gpustack.http1.fault import UpstreamError
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.upstream import UpstreamAddress
from gpustack.worker.engine_key import EngineKeys

_ANSWER_LIMIT = 1 << 20
_FIRST_PAUSE = 0.1
_SENT_AS_IT_IS = "/?&=%:@!$'()*+,;~-._"


@attrs.frozen
class Prober:
    """Probes over the worker's own connection pool."""

    _pool: ConnectionPool
    _keys: EngineKeys

    async def answers(self, port: int, probe: Probe) -> bool:
        """One GET: whether it came back with 200 in time."""
        target = quote(probe.path, safe=_SENT_AS_IT_IS).encode()
        with trio.move_on_after(probe.timeout):
            try:
                async with self._pool.request(
                    UpstreamAddress("127.0.0.1", port), "GET", target, self._keys.fields(port)
                ) as response:
                    if response.status == 200:
                        await response.read(_ANSWER_LIMIT)
                    return response.status == 200
            except UpstreamError:
                return False
            except PayloadTooLarge:  # not what a probe is for, but an answer
                return True
        return False

    async def until_ready(self, port: int, probe: Probe) -> None:
        """Return at the first yes. Waits for ever: the caller sets the deadline.

        At first it asks more often than each ``period``: small models are ready in no time.
        """
        pause = min(_FIRST_PAUSE, probe.period)
        while not await self.answers(port, probe):
            await trio.sleep(pause)
            pause = min(pause * 1.5, probe.period)

    async def until_dead(self, port: int, probe: Probe) -> None:
        """Return after ``probe.failures`` refusals in a row."""
        refused = 0
        while refused < probe.failures:
            await trio.sleep(probe.period)
            refused = 0 if await self.answers(port, probe) else refused + 1

"""Readiness and liveness probes: asks an engine on the loopback whether it answers."""

from __future__ import annotations

import logging
from urllib.parse import quote

import attrs
import trio

from gpustack.engines.engine import Probe, WarmUp
from gpustack.errors import PayloadTooLarge, Unavailable
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.upstream import UpstreamAddress, UpstreamError
from gpustack.worker.engine_key import EngineKeys

log = logging.getLogger(__name__)

_ANSWER_LIMIT = 1 << 20
_FIRST_PAUSE = 0.1
LOOPBACK = "127.0.0.1"
_SENT_AS_IT_IS = "/?&=%:@!$'()*+,;~-._"


@attrs.frozen
class Prober:
    """Probes over the worker's own connection pool."""

    _pool: ConnectionPool
    _keys: EngineKeys

    async def answers(self, port: int, probe: Probe, host: str = LOOPBACK) -> bool:
        """One GET: whether status 200 came in time; without a path, whether a connection did. Raises nothing."""
        with trio.move_on_after(probe.timeout):
            if probe.path is None:
                return await connects(host, port)
            target = quote(probe.path, safe=_SENT_AS_IT_IS).encode()
            try:
                async with self._pool.request(
                    UpstreamAddress(host, port), "GET", target, self._keys.fields(port)
                ) as response:
                    if response.status == 200:
                        await response.read(_ANSWER_LIMIT)
                    return response.status == 200
            except UpstreamError:
                return False
            except PayloadTooLarge:  # an unusual answer to a probe, but an answer
                return True
        return False

    async def until_ready(self, port: int, probe: Probe, host: str = LOOPBACK) -> None:
        """Return when a probe succeeds. Waits for ever: the caller sets the deadline.

        At first it probes more often than each ``period``: small models are ready within a second.
        """
        pause = min(_FIRST_PAUSE, probe.period)
        while not await self.answers(port, probe, host):
            await trio.sleep(pause)
            pause = min(pause * 1.5, probe.period)

    async def warm_up(self, port: int, request: WarmUp, host: str = LOOPBACK) -> None:
        """Make a request and wait for the end of its answer, at most for ``request.timeout``. Raises nothing."""
        fields = ((b"content-type", b"application/json"), *self._keys.fields(port))
        with trio.move_on_after(request.timeout):
            try:
                async with self._pool.request(
                    UpstreamAddress(host, port), "POST", request.path.encode(), fields, request.body.encode()
                ) as response:
                    await response.read(_ANSWER_LIMIT)
            except (UpstreamError, PayloadTooLarge) as error:
                log.debug("A first request failed: port=%d reason=%s", port, error)

    async def ask(
        self, port: int, method: str, path: str, body: bytes = b"", *, within: float
    ) -> tuple[int, bytes]:
        """A call of an engine's own API, with its key: status and body. Raises ``Unavailable`` with a sentence when
        the answer is too long, or has not come after so many seconds."""
        fields = self._keys.fields(port)
        if body:
            fields = ((b"content-type", b"application/json"), *fields)
        with trio.move_on_after(within):
            try:
                async with self._pool.request(
                    UpstreamAddress(LOOPBACK, port), method, path.encode(), fields, body
                ) as response:
                    return response.status, await response.read(_ANSWER_LIMIT)
            except (UpstreamError, PayloadTooLarge) as error:
                raise Unavailable(f"The engine did not answer {path}: {error}") from error
        raise Unavailable(f"The engine did not answer {path} within {within:g} s")

    async def until_dead(self, port: int, probe: Probe) -> None:
        """Return after ``probe.failures`` failed probes in a row."""
        failed = 0
        while failed < probe.failures:
            await trio.sleep(probe.period)
            failed = 0 if await self.answers(port, probe) else failed + 1


async def connects(host: str, port: int) -> bool:
    """Whether something listens there. Cancellable; it has no deadline of its own."""
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError:
        return False
    await trio.aclose_forcefully(stream)
    return True

"""Ray's dashboard, which listens on the loopback of the leading server's machine: read here on behalf of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs

from gpustack.domain.ray import ONLY, RayHead
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import NotFound, Unavailable
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.upstream import UpstreamAddress, UpstreamError, UpstreamResponse
from gpustack.ray.machine import RayMachine
from gpustack.store.server_registry import RegisteredServer

_BEGINS_WITHIN = 30.0
_READS_WITHIN = 60.0


@attrs.frozen
class RayDashboard:
    """Reads pages of the dashboard. Ray's token, without which it tells nothing, is added here alone."""

    _pool: ConnectionPool
    _machine: RayMachine | None
    """``None`` without ``--enable-ray``."""
    _port: int
    _snapshot: Callable[[], Snapshot]
    _servers: Callable[[], Sequence[RegisteredServer]]

    @asynccontextmanager
    async def read(self, target: bytes, headers: Mapping[str, bytes]) -> AsyncIterator[UpstreamResponse]:
        """The answer to ``GET target``.

        Raises ``NotFound`` without Ray, ``Unavailable`` where its dashboard is on another machine or does not answer.
        """
        if self._machine is None:
            raise NotFound("Ray is off: start the servers and workers with --enable-ray")
        running = self._machine.up.value
        if running is None or not running.is_head:
            raise Unavailable(self._elsewhere(self._machine))
        token = self._machine.environment()["RAY_AUTH_TOKEN"]
        fields = [
            (b"authorization", f"Bearer {token}".encode()),
            *((name.encode(), value) for name, value in headers.items()),
        ]
        call = self._pool.request(
            UpstreamAddress("127.0.0.1", self._port),
            "GET",
            target,
            fields,
            first_byte_timeout=_BEGINS_WITHIN,
            idle_timeout=_READS_WITHIN,
        )
        try:
            async with call as response:
                yield response
        except UpstreamError as error:
            raise Unavailable(
                "Ray's dashboard does not answer; it comes with ray[default] beside vLLM, and takes some seconds to "
                f"start: {error}"
            ) from error

    def _elsewhere(self, machine: RayMachine) -> str:
        """Why the dashboard is not on this machine."""
        head = self._snapshot().find(RayHead, name=ONLY)
        if head is not None:
            found = [
                server.url for server in self._servers() if server.uuid == head.server_uuid and server.url
            ]
            return f"Ray's dashboard is at the server that leads: {found[0] if found else head.host}"
        return f"Ray has no head at this moment: {machine.status.message or 'it starts'}"

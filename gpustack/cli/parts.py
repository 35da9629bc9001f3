"""The roles of a daemon, loaded beside the loop while its port answers already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from gpustack.cli.daemon import DaemonContext
from gpustack.http1.reactor import Reactor
from gpustack.nursery.limiter import threads
from gpustack.nursery.tier import Tier
from gpustack.worker.engine_key import EngineKeys

if TYPE_CHECKING:
    from gpustack.cli.front import FrontServer
    from gpustack.cli.server_part import ServerRole
    from gpustack.cli.worker_part import WorkerRole

_MANAGEMENT_ENDS_WITHIN = 1.0


@attrs.frozen
class DaemonRoles:
    """The roles of this daemon; those it does not play are ``None``."""

    front: FrontServer | None
    server: ServerRole | None
    worker: WorkerRole | None

    async def start(self, state: Tier, edge: Tier, work: Tier, control: Tier) -> None:
        """Start everything; returns when requests are taken in."""
        if self.worker is not None:
            await self.worker.meet_engines()
        if self.server is not None and self.front is not None:
            keys = EngineKeys() if self.worker is None else self.worker.keys
            await self.server.start(state, edge, control, self.front, keys)
        if self.worker is not None:
            await self.worker.start(edge, work)

    async def drain(self, within: float) -> None:
        """Take nothing more in and let what is under way end, ``within`` seconds at most."""
        if self.worker is not None and (self.server is None or self.server.is_one_of_several):
            await self.worker.drain()
        if self.server is not None:
            await self.server.drain(within)

    async def give_up(self) -> None:
        """Everything that only one daemon can hold goes to the next one."""
        if self.front is not None:
            await self.front.end_management(_MANAGEMENT_ENDS_WITHIN)
        if self.server is not None:
            await self.server.give_up()

    async def finish(self, within: float) -> None:
        """Let what is under way here end here, ``within`` seconds at most."""
        async with trio.open_nursery() as nursery:
            for part in (self.server, self.worker):
                if part is not None:
                    nursery.start_soon(part.finish, within)


async def load(daemon: DaemonContext, reactor: Reactor, edge: Tier) -> DaemonRoles:
    """Open the front, so that the port answers, and load what is behind it beside the loop.

    A daemon that takes over loads first: until then the one before it answers.
    """
    front = None
    if daemon.doors.at("front"):
        from gpustack.cli.front import FrontServer, cross_origin_of

        if daemon.certificate is not None:
            await edge.start(daemon.certificate)
        front = FrontServer(daemon.doors, reactor, daemon.rng, daemon.certificate)
        front.cross_origin = cross_origin_of(daemon.loaded.options)
        await edge.start(front.hand_off)
        if daemon.successor is None:
            await edge.start(front.server)
    loading = threads("loading", 1)
    server = await loading.run(_server_part, daemon, reactor)
    worker = await loading.run(_worker_part, daemon, reactor)
    if daemon.successor is not None:
        await daemon.successor.take_over()
        if front is not None:
            await edge.start(front.server)
    return DaemonRoles(front, server, worker)


def _server_part(daemon: DaemonContext, reactor: Reactor) -> ServerRole | None:
    if daemon.loaded.role == "worker":
        return None
    from gpustack.cli.server_part import ServerRole

    return ServerRole.build(daemon, reactor)


def _worker_part(daemon: DaemonContext, reactor: Reactor) -> WorkerRole | None:
    if daemon.loaded.role == "server":
        return None
    from gpustack.cli.worker_part import WorkerRole

    return WorkerRole.build(daemon, reactor)

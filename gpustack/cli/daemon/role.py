"""The roles of a daemon: server, worker or both. They are loaded in a thread while the front port answers already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from gpustack.cli.daemon.context import DaemonContext
from gpustack.http1.reactor import Reactor
from gpustack.nursery.limiter import threads
from gpustack.nursery.tier import Tier
from gpustack.worker.engine_key import EngineKeys

if TYPE_CHECKING:
    from gpustack.cli.daemon.front import FrontServer
    from gpustack.cli.daemon.server_role import ServerRole
    from gpustack.cli.daemon.worker_role import WorkerRole
    from gpustack.ray.machine import RayMachine

_MANAGEMENT_ENDS_WITHIN = 1.0
"""Seconds for which requests to the API may still run once a hand-over is decided."""


@attrs.frozen
class DaemonRoles:
    """The roles of this daemon; those it does not play are ``None``."""

    front: FrontServer | None
    server: ServerRole | None
    worker: WorkerRole | None
    ray: RayMachine | None

    async def start(self, state: Tier, edge: Tier, work: Tier, control: Tier) -> None:
        """Start everything, each service in its tier; returns when all have started."""
        if self.ray is not None:
            await work.start(self.ray)  # first: engines on it are ended before it
        if self.worker is not None:
            await self.worker.read_engine_keys()
        if self.server is not None and self.front is not None:
            keys = EngineKeys() if self.worker is None else self.worker.keys
            await self.server.start(state, edge, control, self.front, keys, self.ray)
        if self.worker is not None:
            await self.worker.start(edge, work)

    async def drain(self, within: float) -> None:
        """Accept no new inference and let requests that are under way end, ``within`` seconds at most."""
        if self.worker is not None and (self.server is None or self.server.is_one_of_several):
            await self.worker.drain()
        if self.server is not None:
            await self.server.drain(within)

    async def give_up(self) -> None:
        """Give up what only one daemon can hold: the records."""
        if self.front is not None:
            await self.front.end_management(_MANAGEMENT_ENDS_WITHIN)
        if self.server is not None:
            await self.server.give_up()

    async def finish(self, within: float) -> None:
        """Finish the requests that are under way, ``within`` seconds at most."""
        async with trio.open_nursery() as nursery:
            for part in (self.server, self.worker):
                if part is not None:
                    nursery.start_soon(part.finish, within)


async def load_roles(daemon: DaemonContext, reactor: Reactor, edge: Tier) -> DaemonRoles:
    """Open the front, so that the port answers, then import and build the roles in a thread.

    A daemon that takes over from another opens the front last: until then the other one answers.
    """
    front = None
    if daemon.listeners.at("front"):
        from gpustack.cli.daemon.front import FrontServer, cross_origin_of

        if daemon.certificate is not None:
            await edge.start(daemon.certificate)
        front = FrontServer(daemon.listeners, reactor, daemon.rng, daemon.certificate)
        front.cross_origin = cross_origin_of(daemon.loaded.options)
        await edge.start(front.hand_off)
        if daemon.predecessor is None:
            await edge.start(front.server)
    loading = threads("loading", 1)
    server = await loading.run(_server_role, daemon, reactor)
    worker = await loading.run(_worker_role, daemon, reactor)
    ray = await loading.run(_ray, daemon) if worker is None else worker.ray
    if daemon.predecessor is not None:
        await daemon.predecessor.take_over()
        if front is not None:
            await edge.start(front.server)
    if ray is None:
        await _end_former_ray(daemon)
    return DaemonRoles(front, server, worker, ray)


def _server_role(daemon: DaemonContext, reactor: Reactor) -> ServerRole | None:
    if daemon.loaded.role == "worker":
        return None
    from gpustack.cli.daemon.server_role import ServerRole

    return ServerRole.build(daemon, reactor)


def _worker_role(daemon: DaemonContext, reactor: Reactor) -> WorkerRole | None:
    if daemon.loaded.role == "server":
        return None
    from gpustack.cli.daemon.worker_role import WorkerRole

    return WorkerRole.build(daemon, reactor)


def _ray(daemon: DaemonContext) -> RayMachine | None:
    """The Ray of a server without a worker."""
    from gpustack.cli.daemon.ray import ray_machine

    return ray_machine(daemon, None)


async def _end_former_ray(daemon: DaemonContext) -> None:
    from gpustack.cli.daemon.ray import end_former_ray

    await end_former_ray(daemon.loaded.options)

"""The server role of the daemon: started in the tree, drained on a stop, given up at a hand-over."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

import attrs
import trio
from hypercorn.typing import ASGIFramework

from gpustack.api.access import tell_of_unseen
from gpustack.api.app import create_app
from gpustack.api.worker_endpoint import WorkerEndpoint, is_worker_request
from gpustack.cli.daemon.accounting import Accounting
from gpustack.cli.daemon.cluster import agree_on_secrets, check_shared_database
from gpustack.cli.daemon.context import utc_now
from gpustack.cli.daemon.exporter import start_server_exporter
from gpustack.cli.daemon.front import FrontServer, HandlerMount
from gpustack.cli.daemon.handover import StoppableService
from gpustack.cli.daemon.server_http import api_context, build_gateway
from gpustack.cli.daemon.server_services import ServerServices
from gpustack.cli.daemon.sign_on import import_sign_on
from gpustack.config.loader import Configuration
from gpustack.config.options import Options
from gpustack.config.secret import SHORTEST, keep_initial_admin_password, too_short
from gpustack.errors import Invalid
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.gate import Gate
from gpustack.gateway.inference import Revocation, is_inference
from gpustack.http1.reactor import Reactor
from gpustack.nursery.tier import Tier
from gpustack.ray.machine import RayMachine
from gpustack.server.account import ensure_admin
from gpustack.server.assignment_index import AssignmentIndex
from gpustack.store.dialect import PoolSettings
from gpustack.store.store import FlushDeadline, Store, StoreSettings, open_store
from gpustack.worker.engine_key import EngineKeys
from gpustack.worker.identity import worker_uuid

if TYPE_CHECKING:
    from gpustack.cli.daemon.context import DaemonContext

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class ServerRole:
    """Built beside the loop, started in the tree."""

    _daemon: DaemonContext
    _reactor: Reactor
    gate: Gate = attrs.field(factory=Gate)
    _store: StoppableService | None = None
    _shared: bool = False
    _accounting: Accounting | None = None

    @classmethod
    def build(cls, daemon: DaemonContext, reactor: Reactor) -> ServerRole:
        """Import what a server needs. Blocking: run it in a thread.

        A daemon that takes over checks here whether its server can start, while the daemon before it can still go
        on: raises ``Invalid``, ``DataDirError`` and ``Unavailable``.
        """
        import_sign_on(daemon.loaded.options)
        if daemon.predecessor is not None:
            check_shared_database(daemon.loaded.options, _store_settings(daemon.loaded))
        return cls(daemon, reactor)

    async def start(
        self,
        state: Tier,
        edge: Tier,
        control: Tier,
        front: FrontServer,
        engine_keys: EngineKeys,
        ray: RayMachine | None,
    ) -> None:
        """Open the store and start everything of the role, each in its tier; returns when inference is accepted."""
        daemon = self._daemon
        store = await self._open_store(state)
        identity = await agree_on_secrets(daemon, store)
        services = ServerServices.of(daemon, self._reactor, store, identity, ray)
        await self._ensure_admin(store)
        self._accounting = services.accounting
        await services.accounting.start(state)
        await state.start(FlushDeadline(store))

        await edge.start(services.pool)
        context = api_context(daemon, services, self.readiness)
        has_worker = daemon.loaded.role == "server+worker"
        local_worker = worker_uuid(daemon.loaded.options.data_dir) if has_worker else None
        endpoints = Endpoints(store, daemon.rng, local_worker)
        await edge.start(endpoints)
        gateway = build_gateway(daemon, services, context, endpoints, self.gate, engine_keys)
        await edge.start(Revocation(store, gateway))
        await start_server_exporter(edge, daemon.listeners, self._reactor, services, self.gate)
        assignments = AssignmentIndex(store)
        await edge.start(assignments)
        endpoint = WorkerEndpoint(context, assignments)
        front.hand_off.ready(cast(ASGIFramework, create_app(context)))

        await services.start_control(control)

        self.gate.open()
        front.readiness = self.readiness
        front.left = partial(tell_of_unseen, context)
        # Last: requests that came meanwhile have waited, and must not find the gate closed.
        front.open(HandlerMount(is_inference, gateway), HandlerMount(is_worker_request, endpoint.handle))

    async def _open_store(self, state: Tier) -> Store:
        store = await open_store(_store_settings(self._daemon.loaded), utc_now)
        self._store, self._shared = StoppableService(store), store.shared
        await state.start(self._store)
        if not store.snapshot.users:
            _refuse_short(self._daemon.loaded.options)
        return store

    async def _ensure_admin(self, store: Store) -> None:
        options = self._daemon.loaded.options
        await ensure_admin(
            store,
            given=options.bootstrap_password,
            made=lambda: keep_initial_admin_password(options.data_dir, self._daemon.rng),
            kept_in=options.data_dir / "initial_admin_password",
        )

    @property
    def is_one_of_several(self) -> bool:
        """Whether there can be other servers on its database, which go on when this one ends."""
        return self._shared

    async def drain(self, within: float) -> None:
        """Accept no new inference and wait for what is under way, ``within`` seconds at most."""
        self.gate.close()
        await self.finish(within)

    async def give_up(self) -> None:
        """Leave the records to the next daemon: store what is noted of requests, then close the store."""
        if self._accounting is not None:
            await self._accounting.give_up()
        if self._store is not None:
            await self._store.give_up()

    async def finish(self, within: float) -> None:
        """Wait for inference that is under way, ``within`` seconds at most; the gate stays as it is."""
        with trio.move_on_after(within) as patience:
            await self.gate.emptied()
        if patience.cancelled_caught:
            log.warning(
                "Requests were still under way when the time to finish was over: left=%d", self.gate.inside
            )

    def readiness(self) -> tuple[bool, Mapping[str, str]]:
        """Whether requests can be served, and what each part says."""
        parts = {"store": "serving", "gate": "open" if self.gate.is_open else "closed"}
        return self.gate.is_open, parts


def _refuse_short(options: Options) -> None:
    """Raise ``Invalid`` for secrets that are too short for a new cluster; one that has them already is warned only."""
    faults = [
        f"--{name.replace('_', '-')} has fewer than {SHORTEST[name]} characters: give it more, or leave it out for one "
        "that is made"
        for name in too_short({name: getattr(options, name) for name in SHORTEST})
    ]
    if faults:
        raise Invalid(*faults)


def _store_settings(loaded: Configuration) -> StoreSettings:
    environment = loaded.environment
    return StoreSettings(
        data_dir=str(loaded.options.data_dir),
        url=loaded.options.database_url,
        pool=PoolSettings(
            size=environment.db_pool_size,
            overflow=environment.db_max_overflow,
            timeout=environment.db_pool_timeout,
            echo=environment.db_echo,
        ),
    )

"""Everything a server consists of behind its HTTP, built from its open store; nothing of it runs yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from gpustack import __version__
from gpustack.cli.daemon.accounting import Accounting
from gpustack.cli.daemon.cluster import ClusterIdentity, ClusterMembership
from gpustack.cli.daemon.context import DaemonContext, utc_now
from gpustack.cli.daemon.model_file import facts_reader
from gpustack.cli.daemon.ray import ports_of
from gpustack.cli.daemon.sign_on import SignOnSetup
from gpustack.config.loader import Configuration
from gpustack.config.options import Options
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import Reactor
from gpustack.nursery.restart import NEVER
from gpustack.nursery.service import Service
from gpustack.nursery.tier import Tier
from gpustack.policy.liveness import LivenessSettings
from gpustack.policy.placement import GangSettings
from gpustack.ray.machine import RayMachine
from gpustack.server.facts import FactsCache
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.live_status import LiveStatus
from gpustack.server.model_rates import ModelRates
from gpustack.server.ray_dashboard import RayDashboard
from gpustack.server.ray_head import OwnRay
from gpustack.server.services import BackgroundServices, leading_services
from gpustack.server.update_check import RELEASE_FEED
from gpustack.server.worker_client import WorkerClient
from gpustack.store.fenced_store import FencedStore
from gpustack.store.lease import LeaseTerm
from gpustack.store.store import Store
from gpustack.worker.identity import worker_uuid


@attrs.frozen(kw_only=True)
class ServerServices:
    """The services of a server, which the API and the gateway call."""

    store: Store
    identity: ClusterIdentity
    cluster: ClusterMembership
    accounting: Accounting
    pool: ConnectionPool
    """Connections to workers."""
    worker_client: WorkerClient
    heartbeats: HeartbeatTimes
    """When each worker was last heard."""
    live: LiveStatus
    """What each measured last."""
    rates: ModelRates
    """How fast models are; it looks at what the gateway counts."""
    facts: FactsCache
    background: BackgroundServices
    sign_on: SignOnSetup
    dashboard: RayDashboard
    ray: RayMachine | None

    @classmethod
    def of(
        cls,
        daemon: DaemonContext,
        reactor: Reactor,
        store: Store,
        identity: ClusterIdentity,
        ray: RayMachine | None,
    ) -> ServerServices:
        """Build them all; ``identity`` is what the servers on the database have agreed on."""
        options = daemon.loaded.options
        pool, heartbeats = ConnectionPool(reactor=reactor), HeartbeatTimes(trio.current_time)
        live, rates = (
            LiveStatus(trio.current_time),
            ModelRates(trio.current_time, utc_now, lambda: store.snapshot.models),
        )
        worker_client = WorkerClient(pool, identity.keys.forward_key)
        facts = FactsCache(
            facts_reader(daemon.loaded, daemon.rng), worker_client.facts, lambda: store.snapshot
        )

        own_ray = _own_ray(daemon, identity, ray)

        def leading(term: LeaseTerm | None, lease_lost: Callable[[], None]) -> Sequence[Service]:
            return leading_services(
                FencedStore(store, term, lease_lost),
                facts=facts,
                ask_engine=worker_client.engine_model,
                heartbeats=heartbeats,
                liveness=_liveness(options),
                gangs=gang_settings(daemon.loaded),
                ray=own_ray,
                rng=daemon.rng,
                monotonic=trio.current_time,
            )

        cluster = ClusterMembership.of(daemon, store, identity, heartbeats, live, rates, leading)
        if ray is not None:
            cluster.leadership.standing = ray.leads
        return cls(
            store=store,
            identity=identity,
            cluster=cluster,
            accounting=Accounting.of(options, store, cluster.share),
            pool=pool,
            worker_client=worker_client,
            heartbeats=heartbeats,
            live=live,
            rates=rates,
            facts=facts,
            background=BackgroundServices.of(
                store,
                live,
                facts,
                gang_settings(daemon.loaded),
                catalog_source=options.model_catalog_file,
                version=__version__,
                feed=None if options.disable_update_check else options.update_check_url or RELEASE_FEED,
                now=utc_now,
                rng=daemon.rng,
            ),
            sign_on=SignOnSetup.of(options, monotonic=trio.current_time),
            dashboard=RayDashboard(
                pool,
                ray,
                ports_of(options).given(options.ray_args).dashboard,
                lambda: store.snapshot,
                cluster.servers,
            ),
            ray=ray,
        )

    async def start_control(self, control: Tier) -> None:
        """Run the control loops: those of every server, and leadership, which runs those of the leader."""
        if self.cluster.presence is not None:
            await control.start(self.cluster.presence, restart=NEVER)
        if self.cluster.exchange is not None:
            await control.start(self.cluster.exchange)
        await control.start(self.rates)
        await control.start(self.facts)
        await control.start(self.cluster.leadership, restart=NEVER)  # it restarts what it leads
        for service in (*self.background.services, *self.sign_on.services):
            await control.start(service)


def gang_settings(loaded: Configuration) -> GangSettings:
    """What this daemon was told about models that are divided among workers."""
    environment = loaded.environment
    return GangSettings(
        ray=loaded.options.enable_ray,
        most_remote=environment.default_max_rpc_server_count,
        most_considered=environment.default_max_rpc_combination_generate_gpu_count,
    )


def _own_ray(daemon: DaemonContext, identity: ClusterIdentity, ray: RayMachine | None) -> OwnRay | None:
    if ray is None:
        return None
    has_worker = daemon.loaded.role == "server+worker"
    return OwnRay(
        up=ray.up,
        server_uuid=identity.me.uuid,
        worker_uuid=worker_uuid(daemon.loaded.options.data_dir) if has_worker else "",
    )


def _liveness(options: Options) -> LivenessSettings:
    return LivenessSettings(
        not_ready_after=options.heartbeat_timeout,
        replace_after=options.reschedule_grace,
        stopped_keeps=options.stopped_worker_grace,
        look_every=min(LivenessSettings().look_every, options.heartbeat_timeout / 3),
    )

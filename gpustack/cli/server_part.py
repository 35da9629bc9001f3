"""The server role of the daemon, put together: store, keys, control loops, API and gateway behind the front."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import attrs
import trio
from hypercorn.typing import ASGIFramework

from gpustack import __commit__, __version__
from gpustack.api.access import admit, tell_of_unseen
from gpustack.api.app import AccessRules, ApiContext, Version, create_app
from gpustack.api.context import HubAccess
from gpustack.api.problems import problem_of
from gpustack.api.request import ApiRequest
from gpustack.api.route import WITH_ANYBODY
from gpustack.api.worker_endpoint import WorkerEndpoint
from gpustack.api.worker_endpoint import claims as claims_post
from gpustack.cli.clock import utc_now
from gpustack.cli.cluster_part import ClusterIdentity, ClusterMembership, agree, foresee
from gpustack.cli.facts_reader import facts_reader
from gpustack.cli.front import FrontServer, HandlerMount, cross_origin_of
from gpustack.cli.handover import StoppableService
from gpustack.cli.local import local_admins
from gpustack.cli.metrics_part import start_server_exporter
from gpustack.cli.sign_on import SignOnSetup, import_sign_on, sign_on_part
from gpustack.config.environment import Environment
from gpustack.config.options import Options
from gpustack.config.secret import SHORTEST, keep_initial_admin_password, too_short
from gpustack.domain.access import Principal
from gpustack.errors import GpustackError, Invalid
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.gate import Gate
from gpustack.gateway.inference import Gateway, Revocation, is_inference
from gpustack.gateway.limiter import Limiter
from gpustack.gateway.path import INFERENCE_PATHS
from gpustack.http1.exchange import Exchange
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import Reactor
from gpustack.metrics.mapping_file import MetricMapFile
from gpustack.metrics.traffic import Traffic
from gpustack.nursery.restart import NEVER
from gpustack.nursery.service import Service
from gpustack.nursery.tier import Tier, tree
from gpustack.policy.access import INFERENCE
from gpustack.policy.liveness import LivenessSettings
from gpustack.server.account import ensure_admin
from gpustack.server.assignment_index import AssignmentIndex
from gpustack.server.audit_trail import AuditTrail
from gpustack.server.evaluation import EvaluationSettings, Evaluator
from gpustack.server.facts import FactsCache
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.join import CloneDetector
from gpustack.server.key_use import KeyUseLedger
from gpustack.server.leadership import Reign
from gpustack.server.services import BackgroundServices, leading_services
from gpustack.server.token_budget import TokenBudgets
from gpustack.server.update_check import RELEASE_FEED
from gpustack.server.usage_ledger import UsageLedger
from gpustack.server.worker_client import WorkerClient
from gpustack.store.dialect import PoolSettings
from gpustack.store.fenced_store import FencedStore
from gpustack.store.lease import LeaseTerm
from gpustack.store.store import FlushDeadline, Store, StoreSettings, open_store
from gpustack.worker.engine_key import EngineKeys
from gpustack.worker.identity import worker_uuid

if TYPE_CHECKING:
    from gpustack.cli.daemon import DaemonContext

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class ServerRole:
    """Built beside the loop, started in the tree."""

    _daemon: DaemonContext
    _reactor: Reactor
    gate: Gate = attrs.field(factory=Gate)
    _store: StoppableService | None = None
    _shared: bool = False
    _usage: UsageLedger | None = None
    _trail: AuditTrail | None = None
    _budgets: TokenBudgets | None = None
    _key_use: KeyUseLedger | None = None
    _limiter: Limiter | None = None

    @classmethod
    def build(cls, daemon: DaemonContext, reactor: Reactor) -> ServerRole:
        """Import what a server needs. Blocking: run it in a thread.

        One that takes over looks first whether it can start, as long as the daemon before it may go on: raises
        ``Invalid``, ``DataDirError`` and ``Unavailable``.
        """
        import_sign_on(daemon.loaded.options)
        if daemon.successor is not None:
            foresee(daemon.loaded.options, _settings(daemon))
        return cls(daemon, reactor)

    async def start(
        self, state: Tier, edge: Tier, control: Tier, front: FrontServer, engine_keys: EngineKeys
    ) -> None:
        """Open the store and start everything of the role, each in its tier; returns when inference is taken in."""
        options = self._daemon.loaded.options
        store = await open_store(_settings(self._daemon), utc_now)
        self._store, self._shared = StoppableService(store), store.shared
        await state.start(self._store)
        if not store.snapshot.users:
            _refuse_short(options)
        agreed = await agree(self._daemon, store)
        await ensure_admin(
            store,
            given=options.bootstrap_password,
            made=lambda: keep_initial_admin_password(options.data_dir, self._daemon.rng),
            kept_in=options.data_dir / "initial_admin_password",
        )
        traffic = Traffic()
        budgets = self._budgets = TokenBudgets(store, utc_now, trio.current_time)
        await state.start(budgets)
        usage = self._usage = UsageLedger(store, utc_now, options.data_dir / "usage")
        await state.start(usage)
        trail = self._trail = _trail(options, store)
        await state.start(trail)
        key_use = self._key_use = KeyUseLedger(store, utc_now)
        await state.start(key_use)
        pool = ConnectionPool(reactor=self._reactor)
        await edge.start(pool)
        link = WorkerClient(pool, agreed.keys.forward_key)
        leases = HeartbeatTimes(trio.current_time)
        facts = FactsCache(
            facts_reader(self._daemon.loaded, self._daemon.rng), link.facts, lambda: store.snapshot
        )
        background = self._background(store)
        sign_on = sign_on_part(options, clock=utc_now, monotonic=trio.current_time)
        cluster = ClusterMembership.of(self._daemon, store, agreed, leases, self._reign(store, facts, leases))
        limiter = self._limiter = Limiter(
            store,
            budgets,
            traffic,
            utc_now,
            trio.current_time,
            servers=cluster.share,
            file=options.data_dir / "limits.json",
        )
        await state.start(limiter)
        await state.start(FlushDeadline(store))
        context = self._context(store, agreed, cluster, leases, link, facts, background, sign_on, trail)
        context = attrs.evolve(context, key_used=key_use.note)
        endpoints = Endpoints(store, self._daemon.rng, self._local_worker())
        await edge.start(endpoints)
        gateway = self._gateway(context, endpoints, pool, usage, limiter, traffic, engine_keys)
        await edge.start(Revocation(store, gateway))
        await start_server_exporter(
            edge,
            self._daemon.doors,
            self._reactor,
            store=store,
            gate=self.gate,
            leases=leases,
            leads=lambda: cluster.leadership.leads,
            traffic=traffic,
            monotonic=trio.current_time,
        )
        posts = WorkerEndpoint(context, AssignmentIndex(store))
        front.hand_off.ready(cast(ASGIFramework, create_app(context)))
        if cluster.presence is not None:
            await control.start(cluster.presence, restart=NEVER)
        await control.start(facts)
        await control.start(cluster.leadership, restart=NEVER)  # it restarts what it leads
        for service in (*background.services, *sign_on.services):
            await control.start(service)
        self.gate.open()
        front.readiness = self.readiness
        front.left = partial(tell_of_unseen, context)
        # Last: what has come until now has waited, and is not to find the gate closed.
        front.open(HandlerMount(is_inference, gateway), HandlerMount(claims_post, posts.handle))

    @property
    def is_one_of_several(self) -> bool:
        """Whether there can be other servers on its database, which go on when this one ends."""
        return self._shared

    async def drain(self, within: float) -> None:
        """Take no new inference and wait for what is under way, ``within`` seconds at most."""
        self.gate.close()
        await self.finish(within)

    async def give_up(self) -> None:
        """Let another daemon have the records: what is counted is stored, then nothing is written here any more."""
        if self._limiter is not None:
            self._limiter.give_up()
        if self._usage is not None:
            await self._usage.give_up()
        if self._trail is not None:
            await self._trail.flush()
        if self._budgets is not None:
            await self._budgets.give_up()
        if self._key_use is not None:
            await self._key_use.give_up()
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

    def _reign(self, store: Store, facts: FactsCache, leases: HeartbeatTimes) -> Reign:
        """Makes the loops that run while this server leads."""

        def reign(term: LeaseTerm | None, deposed: Callable[[], None]) -> Sequence[Service]:
            return leading_services(
                FencedStore(store, term, deposed),
                facts=facts,
                leases=leases,
                liveness=_liveness(self._daemon.loaded.options),
                rng=self._daemon.rng,
                monotonic=trio.current_time,
            )

        return reign

    def _background(self, store: Store) -> BackgroundServices:
        options = self._daemon.loaded.options
        return BackgroundServices.of(
            store,
            catalog_source=options.model_catalog_file,
            version=__version__,
            feed=None if options.disable_update_check else options.update_check_url or RELEASE_FEED,
            now=utc_now,
            rng=self._daemon.rng,
        )

    def _context(
        self,
        store: Store,
        agreed: ClusterIdentity,
        cluster: ClusterMembership,
        leases: HeartbeatTimes,
        link: WorkerClient,
        facts: FactsCache,
        background: BackgroundServices,
        sign_on: SignOnSetup,
        trail: AuditTrail,
    ) -> ApiContext:
        options, environment = self._daemon.loaded.options, self._daemon.loaded.environment
        rule = cross_origin_of(options)
        return ApiContext(
            store=store,
            keys=agreed.keys,
            cluster_token=agreed.token,
            leases=leases,
            link=link,
            twins=CloneDetector(link, trio.current_time),
            facts=facts,
            trail=trail,
            rules=AccessRules(
                force_auth_localhost=options.force_auth_localhost,
                local_admins=local_admins(),
                tls=options.ssl_certfile is not None,
                session_minutes=int(environment.jwt_token_expire_minutes),
                trusted_origins=frozenset() if rule is None else rule.trusted,
            ),
            clock=utc_now,
            monotonic=trio.current_time,
            rng=self._daemon.rng,
            draw_tasks=_draw_tasks,
            readiness=self.readiness,
            docs=not options.disable_openapi_docs,
            version=Version(version=__version__, git_commit=__commit__),
            sign_on=sign_on.sign_on,
            heartbeat_interval=options.heartbeat_interval,
            servers=cluster.servers,
            reached_at=cluster.urls,
            metrics=MetricMapFile.within(options.data_dir),
            load=background.load,
            budgets=self._budgets,
            catalog=background.catalog,
            updates=background.updates,
            hub=HubAccess(endpoint=environment.hf_endpoint, token=options.huggingface_token),
            evaluator=Evaluator(
                store,
                facts,
                EvaluationSettings(
                    most=environment.model_evaluation_cache_max_size,
                    keep_for=environment.model_evaluation_cache_ttl,
                ),
            ),
            inference_routes=INFERENCE_PATHS,
        )

    def _gateway(
        self,
        context: ApiContext,
        endpoints: Endpoints,
        pool: ConnectionPool,
        usage: UsageLedger,
        limiter: Limiter,
        traffic: Traffic,
        engine_keys: EngineKeys,
    ) -> Gateway:
        async def authenticate(exchange: Exchange) -> Principal:
            head = exchange.head
            ask = ApiRequest(
                method=head.method,
                path=head.path,
                header=head.get,
                peer=exchange.peer.host,
                body=lambda: exchange.read_body(0),
                header_names=head.names,
                owner=exchange.owner,
            )
            # Who still has to change a password may use models meanwhile, but manage nothing.
            admitted = await admit(
                context, ask, allow=WITH_ANYBODY, scopes=INFERENCE, before_password_change=True
            )
            # A login that was made to last longer: the browser must be told, also where it only chats.
            renewed = [(name.lower().encode(), value.encode()) for name, value in admitted.headers]
            exchange.extra = [*exchange.extra, *renewed]
            return admitted.principal

        return Gateway(
            authenticate,
            endpoints,
            self.gate,
            pool,
            usage,
            context.keys.forward_key,
            _answer_of,
            self._daemon.loaded.environment.proxy_timeout_seconds,
            limiter,
            traffic,
            self._daemon.loaded.environment.tcp_connector_limit or math.inf,
            engine_fields=engine_keys.fields,
        )

    def _local_worker(self) -> str | None:
        loaded = self._daemon.loaded
        return worker_uuid(loaded.options.data_dir) if loaded.role == "server+worker" else None


def _refuse_short(options: Options) -> None:
    """Raise ``Invalid`` for secrets that a new cluster may not have; one that has them goes on, with a warning."""
    faults = [
        f"--{name.replace('_', '-')} has fewer than {SHORTEST[name]} characters: give it more, or leave it out for one "
        "that is made"
        for name in too_short({name: getattr(options, name) for name in SHORTEST})
    ]
    if faults:
        raise Invalid(*faults)


def _settings(daemon: DaemonContext) -> StoreSettings:
    options = daemon.loaded.options
    return StoreSettings(
        data_dir=str(options.data_dir),
        url=options.database_url,
        pool=_pool(daemon.loaded.environment),
    )


def _pool(environment: Environment) -> PoolSettings:
    return PoolSettings(
        size=environment.db_pool_size,
        overflow=environment.db_max_overflow,
        timeout=environment.db_pool_timeout,
        echo=environment.db_echo,
    )


def _trail(options: Options, store: Store) -> AuditTrail:
    days = options.audit_retention_days
    keep_for = timedelta(days=days) if days else None
    return AuditTrail(store, utc_now, trio.current_time, options.data_dir / "audit", keep_for)


def _liveness(options: Options) -> LivenessSettings:
    return LivenessSettings(
        not_ready_after=options.heartbeat_timeout,
        replace_after=options.reschedule_grace,
        stopped_keeps=options.stopped_worker_grace,
        look_every=min(LivenessSettings().look_every, options.heartbeat_timeout / 3),
    )


def _answer_of(error: GpustackError, path: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    problem = problem_of(error)
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    return problem.status, [(b"content-type", b"application/json"), *headers], problem.body(path)


def _draw_tasks() -> dict[str, Any]:
    root = trio.lowlevel.current_root_task()
    return {} if root is None else tree(root)

"""What answers the HTTP of a server: the context that the API is given, and the gateway with its authentication."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import trio

from gpustack import __commit__, __version__
from gpustack.api.access import admit
from gpustack.api.context import (
    AccessControl,
    AccessRules,
    ApiContext,
    HubAccess,
    ModelServices,
    ServerDescription,
    ServerSetting,
    UsageServices,
    Version,
    WorkerServices,
)
from gpustack.api.problems import problem_of
from gpustack.api.request import ApiRequest
from gpustack.api.route import WITH_ANYBODY
from gpustack.api.throttle import LoginLimiters
from gpustack.cli.daemon.context import DaemonContext, utc_now
from gpustack.cli.daemon.front import cross_origin_of
from gpustack.cli.daemon.model_file import model_scope_endpoint
from gpustack.cli.daemon.server_services import ServerServices, gang_settings
from gpustack.cli.local import local_admins
from gpustack.config.loader import Configuration
from gpustack.config.option import table
from gpustack.config.options import Options
from gpustack.config.origin import DEFAULT
from gpustack.domain.access import Principal
from gpustack.errors import GpustackError
from gpustack.gateway.authentication_cache import AuthenticationCache
from gpustack.gateway.dispatcher import Dispatcher
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.gate import Gate
from gpustack.gateway.inference import Gateway
from gpustack.gateway.path import INFERENCE_PATHS
from gpustack.http1.exchange import Exchange
from gpustack.identity.sign_on_trial import try_sign_on
from gpustack.metrics.mapping_file import MetricMapFile
from gpustack.nursery.tier import tree
from gpustack.policy.access import INFERENCE
from gpustack.server.evaluation import EvaluationSettings, Evaluator
from gpustack.server.join import CloneDetector
from gpustack.worker.engine_key import EngineKeys


def api_context(
    daemon: DaemonContext, services: ServerServices, readiness: Callable[[], tuple[bool, Mapping[str, str]]]
) -> ApiContext:
    """What every route of the API is given."""
    options, environment = daemon.loaded.options, daemon.loaded.environment
    rule = cross_origin_of(options)
    return ApiContext(
        store=services.store,
        keys=services.identity.keys,
        clock=utc_now,
        monotonic=trio.current_time,
        rng=daemon.rng,
        trail=services.accounting.trail,
        access=AccessControl(
            cluster_token=services.identity.token,
            logins=LoginLimiters.of(trio.current_time),
            rules=AccessRules(
                force_auth_localhost=options.force_auth_localhost,
                local_admins=local_admins(),
                tls=options.ssl_certfile is not None,
                session_minutes=int(environment.jwt_token_expire_minutes),
                trusted_origins=frozenset() if rule is None else rule.trusted,
            ),
            key_used=services.accounting.key_use.note,
        ),
        sign_on=services.sign_on.sign_on,
        ray=services.dashboard,
        workers=WorkerServices(
            heartbeats=services.heartbeats,
            live=services.live,
            logs=services.worker_client,
            clones=CloneDetector(services.worker_client, trio.current_time),
            heartbeat_interval=options.heartbeat_interval,
            server_urls=services.cluster.urls,
        ),
        models=ModelServices(
            facts=services.facts,
            evaluator=Evaluator(
                services.store,
                services.facts,
                EvaluationSettings(
                    most=environment.model_evaluation_cache_max_size,
                    keep_for=environment.model_evaluation_cache_ttl,
                    gangs=gang_settings(daemon.loaded),
                ),
            ),
            gangs=gang_settings(daemon.loaded),
            silence_allowed=timedelta(seconds=max(options.reschedule_grace - options.heartbeat_timeout, 0.0)),
            catalog=services.background.catalog,
            survival=services.background.survival,
            hub=HubAccess(
                endpoint=environment.hf_endpoint,
                token=options.huggingface_token,
                model_scope=model_scope_endpoint(environment),
            ),
        ),
        usage=UsageServices(
            load=services.background.load,
            budgets=services.accounting.budgets,
            metrics=MetricMapFile.within(options.data_dir),
            rates=services.rates,
        ),
        server=ServerDescription(
            version=Version(version=__version__, git_commit=__commit__),
            docs=not options.disable_openapi_docs,
            certificate_ends=lambda: None if daemon.certificate is None else daemon.certificate.ends,
            readiness=readiness,
            draw_tasks=_draw_tasks,
            updates=services.background.updates,
            servers=services.cluster.servers,
            inference_routes=INFERENCE_PATHS,
            settings=shown_settings(daemon.loaded),
            sign_on_trial=partial(try_sign_on, options, monotonic=trio.current_time, now=utc_now),
        ),
    )


def shown_settings(loaded: Configuration) -> tuple[ServerSetting, ...]:
    """Every option with its value, secrets masked, and its origin."""
    made = []
    for option in table(Options):
        if option.hidden:
            continue
        origin = loaded.origins[option.name]
        made.append(
            ServerSetting(
                name=option.name,
                value=option.show(getattr(loaded.options, option.name)),
                origin=str(origin),
                is_default=origin == DEFAULT,
                is_secret=option.mask is not None,
                group=option.group,
                help=option.help,
                variable=option.env,
            )
        )
    return tuple(made)


def build_gateway(
    daemon: DaemonContext,
    services: ServerServices,
    context: ApiContext,
    endpoints: Endpoints,
    gate: Gate,
    engine_keys: EngineKeys,
) -> Gateway:
    """The handler of inference; callers are known to it as they are to the API."""

    async def authenticate(exchange: Exchange) -> Principal:
        head = exchange.head
        request = ApiRequest(
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
            context, request, allow=WITH_ANYBODY, scopes=INFERENCE, before_password_change=True
        )
        # A login that was made to last longer: the browser must be told, also where it only chats.
        renewed = [(name.lower().encode(), value.encode()) for name, value in admitted.headers]
        exchange.extra = [*exchange.extra, *renewed]
        return admitted.principal

    dispatcher = Dispatcher(
        endpoints,
        services.pool,
        context.keys.forward_key,
        engine_keys.fields,
        _answer_of,
        daemon.loaded.environment.proxy_timeout_seconds,
        daemon.loaded.environment.tcp_connector_limit or math.inf,
    )
    gateway = Gateway(
        AuthenticationCache(authenticate, lambda: services.store.snapshot),
        endpoints,
        dispatcher,
        gate,
        services.accounting.usage,
        _answer_of,
        services.accounting.limiter,
        services.accounting.traffic,
        spool=daemon.loaded.options.data_dir,
    )
    services.rates.counted = gateway.counted
    return gateway


def _answer_of(error: GpustackError, path: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    problem = problem_of(error)
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    return problem.status, [(b"content-type", b"application/json"), *headers], problem.body(path)


def _draw_tasks() -> dict[str, Any]:
    root = trio.lowlevel.current_root_task()
    return {} if root is None else tree(root)

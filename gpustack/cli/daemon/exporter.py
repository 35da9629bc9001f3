"""The exporters of the daemon: the server's and the worker's, each on a port of its own."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import trio

from gpustack.cli.daemon.context import url_at
from gpustack.cli.daemon.listener import Listeners
from gpustack.gateway.gate import Gate
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import Reactor
from gpustack.http1.server import HttpServer
from gpustack.metrics.exporter import LIMITS, Exporter
from gpustack.metrics.process_sample import LoopLag, observe_process
from gpustack.metrics.scrape import scrape_page
from gpustack.metrics.server_sample import ServerObservation, ray_targets, scrape_targets, server_families
from gpustack.metrics.worker_sample import WorkerObservation, engine_families, worker_families
from gpustack.nursery.tier import Tier
from gpustack.ray.machine import RayMachine
from gpustack.worker.exporter import WorkerCollector

if TYPE_CHECKING:
    from gpustack.cli.daemon.server_services import ServerServices

log = logging.getLogger(__name__)

PAGE, RAW_PAGE, TARGETS = "/metrics", "/metrics/raw", "/metrics/targets"
RAY_PAGE, RAY_TARGETS = "/metrics/ray", "/metrics/targets/ray"
"""Ray's own metrics, passed on: beside its port there is none to open for Prometheus."""
_ENGINES_ASKED_EVERY = 3.0
"""Seconds for which an answer of the engines is used again."""


async def start_server_exporter(
    edge: Tier,
    listeners: Listeners,
    reactor: Reactor,
    services: ServerServices,
    gate: Gate,
) -> None:
    """Export the server's metrics, unless there is nothing to listen on."""
    if not listeners.at("server-metrics"):
        return
    lag, store, traffic = LoopLag(), services.store, services.accounting.traffic

    async def look() -> ServerObservation:
        await trio.lowlevel.checkpoint()
        now, snapshot = trio.current_time(), store.snapshot
        traffic.forget_all_but(frozenset(snapshot.models))
        return ServerObservation(
            snapshot=snapshot,
            silence={
                worker_id: now - heard
                for worker_id in snapshot.workers
                if (heard := services.heartbeats.last_heard(worker_id)) is not None
            },
            open=gate.is_open,
            leads=services.cluster.leadership.leads,
            in_flight=gate.inside,
            commits=store.commits,
            writes_waiting=store.writes_waiting,
            fragile={} if (report := services.background.survival.report) is None else report.fragile,
            traffic=traffic.seen(),
            process=observe_process(lag),
        )

    exporter = Exporter(
        "server-exporter",
        look,
        {PAGE: server_families},
        {
            TARGETS: lambda: scrape_targets(store.snapshot),
            RAY_TARGETS: lambda: ray_targets(store.snapshot, RAY_PAGE),
        },
        relays=_ray_page(services.ray, services.pool),
    )
    await edge.start(lag)
    await _serve(edge, "server", exporter, listeners, reactor)


async def start_worker_exporter(
    edge: Tier,
    listeners: Listeners,
    reactor: Reactor,
    look: Callable[[LoopLag], WorkerCollector],
    ray: RayMachine | None,
    pool: ConnectionPool,
) -> None:
    """Export the worker's metrics and those of its engines, unless there is nothing to listen on."""
    if not listeners.at("worker-metrics"):
        return
    lag = LoopLag()
    exporter = Exporter(
        "worker-exporter",
        look(lag),
        {PAGE: worker_families, RAW_PAGE: engine_families},
        text_only=frozenset({RAW_PAGE}),
        relays=_ray_page(ray, pool),
        lifetime=_ENGINES_ASKED_EVERY,
    )
    await edge.start(lag)
    await _serve(edge, "worker", exporter, listeners, reactor)


def _ray_page(
    ray: RayMachine | None, pool: ConnectionPool
) -> Mapping[str, Callable[[], Awaitable[bytes | None]]]:
    if ray is None:
        return {}

    async def ask() -> bytes | None:
        return await scrape_page(pool, ray.metrics_port) if ray.is_up else None

    return {RAY_PAGE: ask}


async def _serve(
    edge: Tier,
    role: str,
    exporter: Exporter[ServerObservation] | Exporter[WorkerObservation],
    listeners: Listeners,
    reactor: Reactor,
) -> None:
    await edge.start(exporter)
    name = f"{role}-metrics"
    sockets = listeners.at(name)
    server = HttpServer(name, sockets, handler=exporter, reactor=reactor, limits=LIMITS)
    await edge.start(listeners.serve(server))
    host, port = sockets[0].getsockname()[:2]
    log.info("Metrics of the %s: %s%s", role, url_at(host, port, tls=False), PAGE)

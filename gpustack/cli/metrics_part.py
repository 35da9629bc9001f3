"""The exporters of the daemon: the server's and the worker's, each on a port of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from gpustack.cli.doors import Listeners
from gpustack.gateway.gate import Gate
from gpustack.http1.reactor import Reactor
from gpustack.http1.server import HttpServer
from gpustack.metrics.exporter import LIMITS, Exporter
from gpustack.metrics.process_sample import LoopLag, observe_process
from gpustack.metrics.server_sample import ServerObservation, scrape_targets, server_families
from gpustack.metrics.traffic import Traffic
from gpustack.metrics.worker_sample import WorkerObservation, engine_families, worker_families
from gpustack.nursery.tier import Tier
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.store.store import Store
from gpustack.worker.exporter import WorkerCollector

log = logging.getLogger(__name__)

PAGE, RAW_PAGE, TARGETS = "/metrics", "/metrics/raw", "/metrics/targets"
_ENGINES_ASKED_EVERY = 3.0
"""Seconds for which what the engines said is good enough."""


async def start_server_exporter(
    edge: Tier,
    doors: Listeners,
    reactor: Reactor,
    *,
    store: Store,
    gate: Gate,
    leases: HeartbeatTimes,
    leads: Callable[[], bool],
    traffic: Traffic,
    monotonic: Callable[[], float],
) -> None:
    """Export the server's metrics, unless there is nothing to listen on."""
    if not doors.at("server-metrics"):
        return
    lag = LoopLag()

    async def look() -> ServerObservation:
        await trio.lowlevel.checkpoint()
        now, snapshot = monotonic(), store.snapshot
        traffic.forget_all_but(frozenset(snapshot.models))
        return ServerObservation(
            snapshot=snapshot,
            silence={
                worker_id: now - heard
                for worker_id in snapshot.workers
                if (heard := leases.last_heard(worker_id)) is not None
            },
            open=gate.is_open,
            leads=leads(),
            in_flight=gate.inside,
            commits=store.commits,
            writes_waiting=store.writes_waiting,
            traffic=traffic.seen(),
            process=observe_process(lag),
        )

    exporter = Exporter(
        "server-exporter",
        look,
        {PAGE: server_families},
        {TARGETS: lambda: scrape_targets(store.snapshot)},
    )
    await edge.start(lag)
    await _serve(edge, "server", exporter, doors, reactor)


async def start_worker_exporter(
    edge: Tier,
    doors: Listeners,
    reactor: Reactor,
    look: Callable[[LoopLag], WorkerCollector],
) -> None:
    """Export the worker's metrics and those of its engines, unless there is nothing to listen on."""
    if not doors.at("worker-metrics"):
        return
    lag = LoopLag()
    exporter = Exporter(
        "worker-exporter",
        look(lag),
        {PAGE: worker_families, RAW_PAGE: engine_families},
        text_only=frozenset({RAW_PAGE}),
        lifetime=_ENGINES_ASKED_EVERY,
    )
    await edge.start(lag)
    await _serve(edge, "worker", exporter, doors, reactor)


async def _serve(
    edge: Tier,
    role: str,
    exporter: Exporter[ServerObservation] | Exporter[WorkerObservation],
    doors: Listeners,
    reactor: Reactor,
) -> None:
    await edge.start(exporter)
    name = f"{role}-metrics"
    listeners = doors.at(name)
    server = HttpServer(name, listeners, handler=exporter, reactor=reactor, limits=LIMITS)
    await edge.start(doors.serve(server))
    host, port = listeners[0].getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("Metrics of the %s: http://%s:%d%s", role, shown, port, PAGE)

"""``gpustack start``: builds everything, opens the tree of nurseries outside-in, and waits for its end.

The shutdown order is the indentation of ``run_daemon``; there is no other list of it.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from gpustack import __version__
from gpustack.config.datadir import DataLock, lock_data_dir, make_dir, refuse_foreign_database
from gpustack.config.load import Loaded, load
from gpustack.config.options import Options
from gpustack.config.origin import ConfigError
from gpustack.errors import GpustackError
from gpustack.http1.certificate import Certificate
from gpustack.http1.listen import open_listeners
from gpustack.http1.reactor import Reactor, new_reactor
from gpustack.logs import set_up
from gpustack.nursery.group import KILL_WITHIN
from gpustack.nursery.limiter import Threads, threads
from gpustack.nursery.notify import Notifier, Watchdog, notifier, watchdog_period
from gpustack.nursery.restart import Restart
from gpustack.nursery.service import function_service
from gpustack.nursery.signals import Signals
from gpustack.nursery.tier import open_tier
from gpustack.worker.intent import Intent

if TYPE_CHECKING:
    from gpustack.cli.server_part import ServerPart
    from gpustack.cli.worker_part import WorkerPart

log = logging.getLogger(__name__)

CONTROL_RESTART = Restart(first=1.0, factor=2.0, ceiling=30.0, budget=5, window=300.0)

_FILES_WANTED = 65535
URL_FILE = "server_url"
LOOPBACK = "127.0.0.1"
FLUSH_SECONDS = 10.0
"""What the store takes at most to commit what was asked before; its module is too heavy to ask it here."""


def start_command(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the daemon until it is told to stop. Returns the exit code: 0, 1 for a failure, 2 for a bad configuration."""
    began = time.monotonic()
    try:
        loaded = load(argv, env, platform=sys.platform, cwd=Path.cwd())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    set_up(debug=loaded.options.debug)
    try:
        return _prepared(loaded, began)
    except GpustackError as error:
        print(f"gpustack: {error}", file=sys.stderr)
        return 1
    except ExceptionGroup as group:
        named, unnamed = group.split(GpustackError)
        if unnamed is not None:
            raise
        for one in _leaves(named):
            print(f"gpustack: {one}", file=sys.stderr)
        return 1


def _leaves(group: BaseException | None) -> Iterator[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        for one in group.exceptions:
            yield from _leaves(one)
    elif group is not None:
        yield group


def _prepared(loaded: Loaded, began: float) -> int:
    options = loaded.options
    for note in loaded.notes:
        log.info("%s", note)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    _allow_open_files()
    make_dir(options.data_dir)
    with lock_data_dir(options.data_dir) as lock:
        fronts: list[socket.socket] = []
        backs: list[socket.socket] = []
        server_metrics: list[socket.socket] = []
        worker_metrics: list[socket.socket] = []
        if loaded.role != "worker":
            refuse_foreign_database(options.data_dir)
            fronts = open_listeners(options.host, options.port)
        if loaded.role != "server":
            backs = open_listeners(
                _worker_host(loaded), options.worker_port, option="--worker-port", host_option="--worker-ip"
            )
        if loaded.role != "worker" and not options.disable_metrics:
            server_metrics = open_listeners(options.host, options.metrics_port, option="--metrics-port")
        if loaded.role != "server" and not options.disable_worker_metrics:
            worker_metrics = open_listeners(
                _worker_host(loaded),
                options.worker_metrics_port,
                option="--worker-metrics-port",
                host_option="--worker-ip",
            )
        daemon = Daemon(
            loaded=loaded,
            lock=lock,
            fronts=fronts,
            backs=backs,
            server_metrics=server_metrics,
            worker_metrics=worker_metrics,
            certificate=_certificate(options),
            began=began,
        )
        if fronts:
            # Where the commands of this machine find their server (``--port 0`` is known to nobody else).
            (options.data_dir / URL_FILE).write_text(f"{daemon.url}\n")
        return trio.run(run_daemon, daemon)


def _certificate(options: Options) -> Certificate | None:
    """The configuration has seen to it that there are both files or none."""
    if options.ssl_certfile is None or options.ssl_keyfile is None:
        return None
    return Certificate.load(options.ssl_certfile, options.ssl_keyfile)


def _worker_host(loaded: Loaded) -> str:
    """A worker beside its own server is reached over the loopback alone, unless an address is given for it."""
    if loaded.options.worker_ip is not None:
        return loaded.options.worker_ip
    return LOOPBACK if loaded.role == "server+worker" else "0.0.0.0"


def _allow_open_files() -> None:
    """Each stream takes two descriptors; the soft limit of most systems is 1024."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(_FILES_WANTED, hard)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.warning("The limit of open files stays at %d: %s", soft, error)


@attrs.frozen(kw_only=True)
class Daemon:
    """What is settled before the tree opens."""

    loaded: Loaded
    lock: DataLock
    fronts: list[socket.socket]
    """What the server listens on; none in a daemon that is only a worker."""
    backs: list[socket.socket]
    """What the worker listens on."""
    server_metrics: list[socket.socket] = attrs.field(factory=list)
    worker_metrics: list[socket.socket] = attrs.field(factory=list)
    """What the exporters listen on; none where they are disabled."""
    certificate: Certificate | None
    began: float
    rng: random.Random = attrs.field(factory=random.SystemRandom)
    intent: Intent = attrs.field(factory=Intent)

    @property
    def url(self) -> str:
        """Where this daemon's own server is reached from this machine."""
        if not self.fronts:
            return self.loaded.options.server_url or ""
        host, port = self.fronts[0].getsockname()[:2]
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def run_daemon(daemon: Daemon) -> int:
    """The tree. What must stop last is opened first."""
    stop, at_once = trio.Event(), trio.CancelScope()
    notify = notifier(os.environ)
    loading = threads("loading", 1)
    bound, restart = stop_budget(daemon.loaded.options), CONTROL_RESTART
    with at_once:
        async with open_tier("signals", stop_within=bound["signals"]) as outermost:
            await outermost.start(_signals(stop, at_once, daemon.intent))
            await outermost.start(Watchdog(notify, watchdog_period(os.environ)))
            async with open_tier("state", stop_within=bound["state"]) as state:
                reactor = new_reactor()
                await state.start(function_service("reactor", reactor.run))
                async with open_tier("edge", stop_within=bound["edge"]) as edge:
                    front = None
                    if daemon.fronts:
                        from gpustack.cli.front import Front, cross_origin_of

                        if daemon.certificate is not None:
                            await edge.start(daemon.certificate)
                        front = Front(daemon.fronts, reactor, daemon.certificate)
                        front.cross_origin = cross_origin_of(daemon.loaded.options)
                        await edge.start(front.hand_off)
                        await edge.start(front.server)
                    # From here on the port answers; what is behind it is loaded beside the loop.
                    server = await _server_part(daemon, reactor, loading)
                    worker = await _worker_part(daemon, reactor, loading)
                    # Not joined into one line: the indentation is what says who outlives whom.
                    async with open_tier("work", stop_within=bound["work"], restart=restart) as work:  # noqa: SIM117
                        async with open_tier(
                            "control", stop_within=bound["control"], restart=restart
                        ) as control:
                            if server is not None and front is not None:
                                await server.start(state, edge, control, front)
                            if worker is not None:
                                await worker.start(edge, work)
                            # The traffic: a gate rather than a tier, for nothing of it outlives its closing.
                            _say_ready(daemon, notify)
                            await stop.wait()
                            notify.stopping("draining")
                            notify.extend_timeout(sum(bound.values()))
                            if server is not None:
                                await server.drain(bound["drain"])
    if at_once.cancelled_caught:
        log.warning("Stopped at once")
    log.info("Stopped")
    return 0


def stop_budget(options: Options) -> Mapping[str, float]:
    """Seconds each part of a stop may take, in the order of stopping.

    With default options their sum is below ``TimeoutStopSec`` of the systemd units; a test adds it up. With longer
    ones the daemon asks systemd for more time when it begins to stop.
    """
    return {
        "drain": options.drain_timeout,
        "control": 5.0,
        "work": options.engine_stop_grace + KILL_WITHIN + 5.0,
        "edge": 5.0,
        "state": FLUSH_SECONDS + 2.0,
        "signals": 2.0,
    }


def _signals(stop: trio.Event, at_once: trio.CancelScope, intent: Intent) -> Signals:
    def drain() -> None:
        log.info("Stopping: requests in flight finish, then engines end; a second signal stops at once")
        intent.stopping = True
        stop.set()

    def now() -> None:
        at_once.cancel()

    def hand_over() -> None:
        log.warning("A reload was asked for, which this version cannot do; restart it instead")

    return Signals(drain=drain, at_once=now, hand_over=hand_over)


async def _server_part(daemon: Daemon, reactor: Reactor, loading: Threads) -> ServerPart | None:
    if daemon.loaded.role == "worker":
        return None

    def build() -> ServerPart:
        from gpustack.cli.server_part import ServerPart

        return ServerPart.build(daemon, reactor)

    return await loading.run(build)


async def _worker_part(daemon: Daemon, reactor: Reactor, loading: Threads) -> WorkerPart | None:
    if daemon.loaded.role == "server":
        return None

    def build() -> WorkerPart:
        from gpustack.cli.worker_part import WorkerPart

        return WorkerPart.build(daemon, reactor)

    return await loading.run(build)


def _say_ready(daemon: Daemon, notify: Notifier) -> None:
    took = time.monotonic() - daemon.began
    role = daemon.loaded.role
    where = daemon.url if role == "worker" else f"{daemon.url} (API, and docs at {daemon.url}/docs)"
    verb = "joining" if role == "worker" else "listening on"
    log.info("GPUStack %s is ready as %s in %.2f s, %s %s", __version__, role, took, verb, where)
    notify.ready(f"{role}, {daemon.url}")

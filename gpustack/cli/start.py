"""``gpustack start``: builds the daemon, opens the tree of nurseries outside-in, and waits for its end.

The order of a shutdown is the indentation of ``run_daemon``; there is no other list of it.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

import trio

from gpustack import __version__, durable_file
from gpustack.cli.daemon.context import CONTROL_RESTART, DaemonContext
from gpustack.cli.daemon.handover import VARIABLE, Inheritance, PredecessorLink
from gpustack.cli.daemon.listener import Listeners
from gpustack.cli.daemon.role import load_roles
from gpustack.cli.daemon.shutdown import ShutdownRequests, signals
from gpustack.cli.installation import load_options
from gpustack.cli.local import local_rule
from gpustack.cli.session import URL_FILE
from gpustack.config.datadir import lock_data_dir, make_dir, refuse_foreign_database, refuse_open_dir
from gpustack.config.loader import Configuration
from gpustack.config.options import Options
from gpustack.http1.certificate import Certificate
from gpustack.http1.reactor import new_reactor
from gpustack.logs import set_up
from gpustack.nursery.group import KILL_WITHIN
from gpustack.nursery.heap import HeapTrimmer, keep_large_apart
from gpustack.nursery.notify import Notifier, Watchdog, notifier, watchdog_period
from gpustack.nursery.process import OrphanReaper
from gpustack.nursery.service import function_service
from gpustack.nursery.tier import open_tier

log = logging.getLogger(__name__)

_FILES_WANTED = 65535
GOODBYE_SECONDS = 2.0
"""What a worker takes at most to tell its server that it stops. Its module is too heavy to be imported here."""
RAY_SECONDS = 8.0
"""What Ray takes at most to end, after the engines. Its module is too heavy as well."""
FLUSH_SECONDS = 10.0
"""What the store takes at most to commit the writes that were asked for. Its module is too heavy as well."""


def start_command(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the daemon until it is told to stop; returns 0. Raises UsageError for a bad configuration, GpustackError or
    a group of such errors when it cannot start or go on."""
    began = time.monotonic()
    _reset_signals()
    inheritance = Inheritance.read(os.environ)
    os.environ.pop(VARIABLE, None)
    predecessor = PredecessorLink.of(inheritance) if inheritance else None
    loaded = load_options(argv, env)
    set_up(debug=loaded.options.debug)
    _log_configuration(loaded)
    options = loaded.options
    _allow_open_files()
    keep_large_apart()
    make_dir(options.data_dir)
    refuse_open_dir(options.data_dir)
    with lock_data_dir(options.data_dir, inherited=inheritance.lock if inheritance else None) as lock:
        if loaded.role != "worker":
            refuse_foreign_database(options.data_dir)
        daemon = DaemonContext(
            loaded=loaded,
            lock=lock,
            listeners=Listeners.open(loaded, inheritance.listeners if inheritance else {}),
            certificate=_certificate(options),
            began=began,
            argv=tuple(argv),
            predecessor=predecessor,
        )
        if loaded.role != "worker":
            # Where the commands of this machine find their server (``--port 0`` is known to nobody else).
            durable_file.write(options.data_dir / URL_FILE, f"{daemon.url}\n", mode=0o666, sync=False)
        return trio.run(run_daemon, daemon)


def _reset_signals() -> None:
    """Undo what our parent may have done to signals that we need: with an ignored SIGCHLD the kernel reaps our
    children, and how they ended is never known."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _log_configuration(loaded: Configuration) -> None:
    for note in loaded.notes:
        log.info("%s", note)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    if loaded.options.debug:
        from gpustack.config.rendering import effective

        for line in effective(loaded).splitlines():
            log.debug("%s", line)


def _certificate(options: Options) -> Certificate | None:
    """The certificate of the front; the configuration was checked to have both files or none."""
    if options.ssl_certfile is None or options.ssl_keyfile is None:
        return None
    loaded = Certificate.load(options.ssl_certfile, options.ssl_keyfile)
    if loaded.ends is not None and loaded.ends <= datetime.now(UTC):
        log.warning(
            "The certificate in %s has ended on %s, and clients refuse it: put a new one in its place, which is "
            "taken within seconds",
            options.ssl_certfile,
            loaded.ends.date(),
        )
    return loaded


def _allow_open_files() -> None:
    """Raise the soft limit of open files: each stream takes two descriptors, and most systems allow 1024."""
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


async def run_daemon(daemon: DaemonContext) -> int:
    """The tree. What must stop last is opened first."""
    requests, at_once = ShutdownRequests(daemon.shutdown_mode), trio.CancelScope()
    notify = notifier(os.environ)
    bound, restart = stop_budget(daemon.loaded.options), CONTROL_RESTART
    with at_once:
        async with open_tier("signals", stop_within=bound["signals"]) as outermost:
            await outermost.start(signals(requests, at_once))
            if os.getpid() == 1:
                await outermost.start(OrphanReaper())
            async with open_tier("state", stop_within=bound["state"]) as state:
                reactor = new_reactor()
                await state.start(function_service("reactor", reactor.run))
                await state.start(HeapTrimmer())
                async with open_tier("edge", stop_within=bound["edge"]) as edge:
                    roles = await load_roles(daemon, reactor, edge)
                    # Not before: systemd does not hear a daemon that takes over until then.
                    await outermost.start(Watchdog(notify, watchdog_period(os.environ)))
                    # Not joined into one line: the indentation is what says who outlives whom.
                    async with open_tier("work", stop_within=bound["work"], restart=restart) as work:  # noqa: SIM117
                        async with open_tier(
                            "control", stop_within=bound["control"], restart=restart
                        ) as control:
                            if daemon.predecessor is not None and daemon.predecessor.is_to_stop:
                                requests.stop()
                            await roles.start(state, edge, work, control)
                            # Traffic has a gate rather than a tier: nothing of it outlives the gate's closing.
                            _say_ready(daemon, notify)
                            successor = await requests.decided(daemon)
                            if successor is None:
                                notify.stopping("draining")
                                notify.extend_timeout(sum(bound.values()))
                                await roles.drain(bound["drain"])
                            else:
                                await daemon.listeners.leave()
                    if successor is not None:
                        await roles.give_up()
                        notify.main_pid(successor.pid)
                        requests.let_go(successor)
                        # The next daemon may end before this one: its lock and its ports must be free then.
                        daemon.listeners.close()
                        daemon.lock.close()
                        log.info("Handed over: pid=%d", successor.pid)
                        await roles.finish(daemon.loaded.options.reload_drain_timeout)
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
        "leave": options.leave_timeout if options.leave else 0.0,
        "goodbye": GOODBYE_SECONDS * (2 if options.leave else 1),
        "drain": options.drain_timeout,
        "control": 5.0,
        "work": options.engine_stop_grace + KILL_WITHIN + 5.0 + (RAY_SECONDS if options.enable_ray else 0.0),
        "edge": 5.0,
        "state": FLUSH_SECONDS + 4.0,
        "signals": 2.0,
    }


def _listens_on(daemon: DaemonContext) -> str:
    return "" if daemon.is_open_to_all else urlsplit(daemon.url).hostname or ""


def _say_ready(daemon: DaemonContext, notify: Notifier) -> None:
    took = time.monotonic() - daemon.began
    role, options = daemon.loaded.role, daemon.loaded.options
    if role == "worker":
        where = f"joining {daemon.url}"
    else:
        anywhere = "all addresses, here at " if daemon.is_open_to_all else ""
        where = f"listening on {anywhere}{daemon.url} (web console and API; guide at {daemon.url}/guide/)"
    log.info("GPUStack %s is ready as %s in %.2f s, %s", __version__, role, took, where)
    if role != "worker":
        log.info("Who may do what: %s", local_rule(options.force_auth_localhost, _listens_on(daemon)))
    notify.ready(f"{role}, {daemon.url}")

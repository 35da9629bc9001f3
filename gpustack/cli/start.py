"""``gpustack start``: builds everything, opens the tree of nurseries outside-in, and waits for its end.

The shutdown order is the indentation of ``run_daemon``; there is no other list of it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import trio

from gpustack import __version__
from gpustack.cli.address import URL_FILE
from gpustack.cli.daemon import CONTROL_RESTART, DaemonContext
from gpustack.cli.doors import Listeners
from gpustack.cli.handover import VARIABLE, Inheritance, PredecessorLink
from gpustack.cli.local import local_rule
from gpustack.cli.parts import load as load_parts
from gpustack.cli.wish import ShutdownRequests, signals
from gpustack.config.datadir import lock_data_dir, make_dir, refuse_foreign_database, refuse_open_dir
from gpustack.config.loader import Configuration, load
from gpustack.config.options import Options
from gpustack.config.origin import ConfigError
from gpustack.errors import GpustackError
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
"""What a worker takes at most to tell its server something before it stops; its module is too heavy as well."""
FLUSH_SECONDS = 10.0
"""What the store takes at most to commit what was asked before; its module is too heavy to ask it here."""


def start_command(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the daemon until it is told to stop. Returns the exit code: 0, 1 for a failure, 2 for a bad configuration."""
    began = time.monotonic()
    _forget_inherited_signals()
    inherited = Inheritance.read(os.environ)
    os.environ.pop(VARIABLE, None)
    successor = PredecessorLink.of(inherited) if inherited else None
    try:
        loaded = load(argv, env, platform=sys.platform, cwd=Path.cwd())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    set_up(debug=loaded.options.debug)
    try:
        return _prepared(loaded, argv, began, inherited, successor)
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


def _forget_inherited_signals() -> None:
    """Whoever started us may have ignored or blocked signals that we live by: children whose end is ignored are
    reaped by the kernel, and nobody learns how they ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _leaves(group: BaseException | None) -> Iterator[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        for one in group.exceptions:
            yield from _leaves(one)
    elif group is not None:
        yield group


def _prepared(
    loaded: Configuration,
    argv: Sequence[str],
    began: float,
    inherited: Inheritance | None,
    successor: PredecessorLink | None,
) -> int:
    options = loaded.options
    for note in loaded.notes:
        log.info("%s", note)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    if options.debug:
        from gpustack.config.rendering import effective

        for line in effective(loaded).splitlines():
            log.debug("%s", line)
    _allow_open_files()
    keep_large_apart()
    make_dir(options.data_dir)
    refuse_open_dir(options.data_dir)
    with lock_data_dir(options.data_dir, inherited=inherited.lock if inherited else None) as lock:
        if loaded.role != "worker":
            refuse_foreign_database(options.data_dir)
        daemon = DaemonContext(
            loaded=loaded,
            lock=lock,
            doors=Listeners.open(loaded, inherited.doors if inherited else {}),
            certificate=_certificate(options),
            began=began,
            argv=tuple(argv),
            successor=successor,
        )
        if loaded.role != "worker":
            # Where the commands of this machine find their server (``--port 0`` is known to nobody else).
            (options.data_dir / URL_FILE).write_text(f"{daemon.url}\n")
        return trio.run(run_daemon, daemon)


def _certificate(options: Options) -> Certificate | None:
    """The configuration has seen to it that there are both files or none."""
    if options.ssl_certfile is None or options.ssl_keyfile is None:
        return None
    return Certificate.load(options.ssl_certfile, options.ssl_keyfile)


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


async def run_daemon(daemon: DaemonContext) -> int:
    """The tree. What must stop last is opened first."""
    wishes, at_once = ShutdownRequests(daemon.intent), trio.CancelScope()
    notify = notifier(os.environ)
    bound, restart = stop_budget(daemon.loaded.options), CONTROL_RESTART
    with at_once:
        async with open_tier("signals", stop_within=bound["signals"]) as outermost:
            await outermost.start(signals(wishes, at_once))
            if os.getpid() == 1:
                await outermost.start(OrphanReaper())
            async with open_tier("state", stop_within=bound["state"]) as state:
                reactor = new_reactor()
                await state.start(function_service("reactor", reactor.run))
                await state.start(HeapTrimmer())
                async with open_tier("edge", stop_within=bound["edge"]) as edge:
                    parts = await load_parts(daemon, reactor, edge)
                    # Not before, for a daemon that takes over is not heard until then, and no other is watched.
                    await outermost.start(Watchdog(notify, watchdog_period(os.environ)))
                    # Not joined into one line: the indentation is what says who outlives whom.
                    async with open_tier("work", stop_within=bound["work"], restart=restart) as work:  # noqa: SIM117
                        async with open_tier(
                            "control", stop_within=bound["control"], restart=restart
                        ) as control:
                            if daemon.successor is not None and daemon.successor.is_to_stop:
                                wishes.stop()
                            await parts.start(state, edge, work, control)
                            # The traffic: a gate rather than a tier, for nothing of it outlives its closing.
                            _say_ready(daemon, notify)
                            after = await wishes.until_over(daemon)
                            if after is None:
                                notify.stopping("draining")
                                notify.extend_timeout(sum(bound.values()))
                                await parts.drain(bound["drain"])
                            else:
                                await daemon.doors.leave()
                    if after is not None:
                        await parts.give_up()
                        notify.main_pid(after.pid)
                        wishes.let_go(after)
                        # What ends here last must hold up nobody: the next daemon may end before this one.
                        daemon.doors.close()
                        daemon.lock.close()
                        log.info("Handed over: pid=%d", after.pid)
                        await parts.finish(daemon.loaded.options.reload_drain_timeout)
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
        "work": options.engine_stop_grace + KILL_WITHIN + 5.0,
        "edge": 5.0,
        "state": FLUSH_SECONDS + 4.0,
        "signals": 2.0,
    }


def _say_ready(daemon: DaemonContext, notify: Notifier) -> None:
    took = time.monotonic() - daemon.began
    role, options = daemon.loaded.role, daemon.loaded.options
    if role == "worker":
        where = f"joining {daemon.url}"
    else:
        docs = "API" if options.disable_openapi_docs else f"API, and docs at {daemon.url}/docs"
        anywhere = "all addresses, here at " if daemon.is_open_to_all else ""
        where = f"listening on {anywhere}{daemon.url} ({docs})"
    log.info("GPUStack %s is ready as %s in %.2f s, %s", __version__, role, took, where)
    if role != "worker":
        log.info("Who may do what: %s", local_rule(options.force_auth_localhost))
    notify.ready(f"{role}, {daemon.url}")

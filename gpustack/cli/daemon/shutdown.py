"""What signals ask of the daemon: an orderly stop, a stop at once, or a hand-over to the next daemon."""

from __future__ import annotations

import errno
import logging
import os
import sys

import attrs
import trio

from gpustack.cli.daemon.context import DaemonContext
from gpustack.cli.daemon.handover import HandOverError, SuccessorProcess
from gpustack.nursery.signals import Signals
from gpustack.worker.shutdown import ShutdownMode

log = logging.getLogger(__name__)

_IS_PROCESS_1 = (
    "This daemon is process 1, as in a container without an init: the container would end with it, so it cannot hand "
    "over to another one. Restart the container, or run it with an init (docker run --init)"
)


@attrs.define
class ShutdownRequests:
    """What signals have asked for so far.

    Stop or hand-over is decided once, in the step that finds the next daemon ready. A stop that is asked for after
    that is passed to the next daemon, which owns engines and records by then.
    """

    mode: ShutdownMode
    """What the worker reads when it stops."""
    is_handing_over: bool = False
    """The decision was for a hand-over, and it is not finished."""
    stops_next: bool = False
    """A stop was asked for during the hand-over: the next daemon is to do it."""
    _stop: trio.Event = attrs.field(factory=trio.Event)
    _hand_over: trio.Event = attrs.field(factory=trio.Event)

    def stop(self) -> None:
        """Ask for an orderly stop, engines included."""
        if self.is_handing_over:
            self.stops_next = True
            return
        self.mode.ends_engines = True
        self._stop.set()
        self._hand_over.set()

    def hand_over(self) -> None:
        """Ask for a hand-over to the program as now installed; engines go on."""
        self._hand_over.set()

    async def decided(self, daemon: DaemonContext) -> SuccessorProcess | None:
        """Wait until this daemon is to end: ``None`` for a stop, else the next daemon, which is loaded and waits.

        A hand-over that fails is logged, and the wait goes on. Cancellable.
        """
        while True:
            await self._hand_over.wait()
            if self._stop.is_set():
                return None
            self._hand_over = trio.Event()
            if os.getpid() == 1:
                log.error(_IS_PROCESS_1)
                continue
            log.info("Handing over: the new daemon loads, this one serves meanwhile")
            try:
                successor = SuccessorProcess.start(
                    daemon.argv, daemon.listeners.descriptors(), daemon.lock.fileno()
                )
                if await self._ready_or_stopped(successor):
                    self.is_handing_over = True
                    log.info("The new daemon is ready and takes over: pid=%d", successor.pid)
                    return successor
            except HandOverError as error:
                daemon.lock.sign()
                log.error("%s; this one goes on", error)
            else:
                successor.give_up()
                return None

    def let_go(self, successor: SuccessorProcess) -> None:
        """Let the next daemon take over, and do the stop that was asked for meanwhile, if any."""
        successor.let_go(to_stop=self.stops_next)
        self.is_handing_over = False

    async def _ready_or_stopped(self, successor: SuccessorProcess) -> bool:
        """Wait for the next daemon to be ready; false when a stop was asked for meanwhile."""
        failure: HandOverError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_on_stop, nursery.cancel_scope)
            try:
                await successor.ready()
            except HandOverError as error:  # a nursery would wrap it
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return not self._stop.is_set()

    async def _cancel_on_stop(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel()


def signals(requests: ShutdownRequests, at_once: trio.CancelScope) -> Signals:
    """The service that turns signals into requests; a second stop cancels ``at_once``."""

    def drain() -> None:
        requests.stop()
        if requests.is_handing_over:
            log.info("Stopping: the new daemon does it, as soon as it has taken over")
        else:
            log.info("Stopping: requests in flight finish, then engines end; a second signal stops at once")

    def end() -> None:
        # During a hand-over an end at once would leave engines that no daemon watches.
        if not requests.is_handing_over:
            at_once.cancel()

    def hang_up() -> None:
        if _terminal_is_gone():
            log.info("The terminal was closed")
            requests.stop()
        else:
            requests.hand_over()

    return Signals(drain=drain, at_once=end, hand_over=hang_up)


def _terminal_is_gone() -> bool:
    """Whether SIGHUP means that the terminal of a program in the foreground was closed, and not a reload."""
    try:
        os.ttyname(sys.stdin.fileno())
    except OSError as error:
        return error.errno == errno.EIO
    except ValueError:  # stdin was closed
        return False
    return False

"""What signals ask of the daemon: a stop in order, a stop at once, or to hand over to the next one."""

from __future__ import annotations

import errno
import logging
import os
import sys

import attrs
import trio

from gpustack.cli.daemon import DaemonContext
from gpustack.cli.handover import HandOverError, SuccessorProcess
from gpustack.nursery.signals import Signals
from gpustack.worker.shutdown import ShutdownMode

log = logging.getLogger(__name__)

_ONE = (
    "This daemon is process 1, as in a container without an init: the container would end with it, so it cannot hand "
    "over to another one. Restart the container, or run it with an init (docker run --init)"
)


@attrs.define
class ShutdownRequests:
    """What signals have asked for.

    Between a stop and a hand-over is decided once, in the step that finds the next daemon ready. A stop that is asked
    for after that is the next daemon's: engines and records are on their way to it.
    """

    intent: ShutdownMode
    stops_next: bool = False
    """A stop was asked for while everything was being handed over."""
    is_handing_over: bool = False
    _stop: trio.Event = attrs.field(factory=trio.Event)
    _hand_over: trio.Event = attrs.field(factory=trio.Event)

    def stop(self) -> None:
        """End in order, engines too."""
        if self.is_handing_over:
            self.stops_next = True
            return
        self.intent.ends_engines = True
        self._stop.set()
        self._hand_over.set()

    def hand_over(self) -> None:
        """Let the program as now installed go on, engines untouched."""
        self._hand_over.set()

    async def until_over(self, daemon: DaemonContext) -> SuccessorProcess | None:
        """Wait for the end of this daemon: ``None`` for a stop, else the next one, which has loaded and waits."""
        while True:
            await self._hand_over.wait()
            if self._stop.is_set():
                return None
            self._hand_over = trio.Event()
            if os.getpid() == 1:
                log.error(_ONE)
                continue
            log.info("Handing over: the new daemon loads, this one serves meanwhile")
            try:
                after = SuccessorProcess.start(daemon.argv, daemon.doors.descriptors(), daemon.lock.fileno())
                if await self._ready_or_stopped(after):
                    self.is_handing_over = True
                    log.info("The new daemon is ready and takes over: pid=%d", after.pid)
                    return after
            except HandOverError as error:
                daemon.lock.sign()
                log.error("%s; this one goes on", error)
            else:
                after.give_up()
                return None

    def let_go(self, after: SuccessorProcess) -> None:
        """Everything is the next daemon's now, and so is a stop that was asked for meanwhile."""
        after.let_go(to_stop=self.stops_next)
        self.is_handing_over = False

    async def _ready_or_stopped(self, after: SuccessorProcess) -> bool:
        """Wait for the next daemon to be ready; false when a stop was asked for meanwhile."""
        failure: HandOverError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_on_stop, nursery.cancel_scope)
            try:
                await after.ready()
            except HandOverError as error:  # a nursery would wrap it
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return not self._stop.is_set()

    async def _cancel_on_stop(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel()


def signals(wishes: ShutdownRequests, at_once: trio.CancelScope) -> Signals:
    def drain() -> None:
        wishes.stop()
        if wishes.is_handing_over:
            log.info("Stopping: the new daemon does it, as soon as it has taken over")
        else:
            log.info("Stopping: requests in flight finish, then engines end; a second signal stops at once")

    def end() -> None:
        # In the middle of it, an end at once would leave engines that nobody watches.
        if not wishes.is_handing_over:
            at_once.cancel()

    def hang_up() -> None:
        if _terminal_is_gone():
            log.info("The terminal was closed")
            wishes.stop()
        else:
            wishes.hand_over()

    return Signals(drain=drain, at_once=end, hand_over=hang_up)


def _terminal_is_gone() -> bool:
    """SIGHUP means a reload, but to a program in the foreground of a terminal also that the terminal was closed."""
    try:
        os.ttyname(sys.stdin.fileno())
    except OSError as error:
        return error.errno == errno.EIO
    except ValueError:  # stdin was closed
        return False
    return False

"""The hand-over of a daemon to the program as now installed: sockets, data directory and engines stay in use.

The old daemon starts the new one, which inherits its listening sockets and its lock of the data directory. The new
one loads all it needs and then says that it is ready. Only then does the old one stop accepting connections (new ones
wait in the queues of the sockets), end control loops and worker services, give up the store, and tell the new one to
take over.
Requests that are under way are finished by the old one, for a bounded time. Nothing is given up before the new one is
ready, so a program that cannot start changes nothing.

The new daemon is made an orphan, and so a child of systemd: systemd does not see the end of a main process that is
the child of another process, and would kill it at once where it should wait for its stop.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from itertools import chain

import attrs
import trio

from gpustack.errors import GpustackError
from gpustack.nursery.process import module_command
from gpustack.nursery.service import Service

log = logging.getLogger(__name__)

VARIABLE = "GPUSTACK_HAND_OVER"
READY_WITHIN = 60.0
"""Seconds the new daemon may take to load. The old one serves meanwhile."""
_READY, _YOURS, _YOURS_TO_STOP = b"ready\n", b"yours\n", b"yours, to stop\n"


class HandOverError(GpustackError):
    """The new daemon did not start, or the old one did not hand over to it."""


@attrs.frozen(kw_only=True)
class Inheritance:
    """The file descriptors that a daemon was given by the one before it."""

    listeners: Mapping[str, Sequence[int]]
    """Listening sockets, by the names of ``Listeners``."""
    lock: int
    """The locked file of the data directory."""
    talk: int
    """The socket to the daemon before."""

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Inheritance | None:
        """What the environment says; ``None`` in a daemon that does not take over from another."""
        text = env.get(VARIABLE)
        if text is None:
            return None
        said = json.loads(text)
        if said["for"] != os.getppid():
            return None  # an engine or a shell of ours passed the variable on
        return cls(listeners=said["doors"], lock=said["lock"], talk=said["talk"])


@attrs.define
class PredecessorLink:
    """The new daemon's connection to the old one."""

    _talk: socket.socket
    is_to_stop: bool = False
    """A stop was asked of the old daemon while it handed over: it is left to this one."""

    @classmethod
    def of(cls, inherited: Inheritance) -> PredecessorLink:
        """Open the connection and go on as an orphan (this forks: nothing may be open or running yet)."""
        talk = socket.socket(fileno=inherited.talk)
        talk.set_inheritable(False)
        if os.fork():
            os._exit(0)
        with contextlib.suppress(BrokenPipeError):  # the old one has ended, which ``take_over`` tells
            talk.send(b"%d\n" % os.getpid())
        return cls(talk)

    async def take_over(self) -> None:
        """Tell the old daemon that this one is ready, and wait until it has given up everything. Cancellable.

        Raises ``HandOverError`` when it ends or goes on instead.
        """
        self._talk.setblocking(False)
        line = trio.socket.from_stdlib_socket(self._talk)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await line.send(_READY)
            said = await line.recv(len(_YOURS_TO_STOP))
            if said in (_YOURS, _YOURS_TO_STOP):
                line.close()
                self.is_to_stop = said == _YOURS_TO_STOP
                return
        raise HandOverError("The daemon before this one did not hand over")


@attrs.define
class SuccessorProcess:
    """The new daemon, as the old one has started it. It sends its process number, then that it is ready."""

    _process: subprocess.Popen[bytes]
    _talk: socket.socket
    _orphan: int | None = None

    @classmethod
    def start(
        cls, argv: Sequence[str], listeners: Mapping[str, Sequence[int]], lock: int
    ) -> SuccessorProcess:
        """Start ``gpustack start *argv`` as now installed, with what it inherits. Raises ``HandOverError``."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise HandOverError(f"The new daemon cannot be started: {error.strerror}") from error
        descriptors = [*chain.from_iterable(listeners.values()), lock, theirs.fileno()]
        # Other versions of this program read these names, so they stay: "doors" are the listeners.
        said = {"for": os.getpid(), "doors": listeners, "lock": lock, "talk": theirs.fileno()}
        # Which process systemd is to watch is told when it has taken over; its number is not known yet.
        environment = {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"}
        try:
            process = subprocess.Popen(
                module_command("gpustack", "start", *argv),
                env={**environment, VARIABLE: json.dumps(said)},
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            ours.close()
            raise HandOverError(f"The new daemon cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """The process number of the new daemon, once it is ready."""
        assert self._orphan is not None
        return self._orphan

    async def ready(self) -> None:
        """Wait until the new daemon has loaded, ``READY_WITHIN`` seconds at most. Cancellable.

        Raises ``HandOverError`` when it ends instead, or takes longer (then it is ended).
        """
        with trio.move_on_after(READY_WITHIN) as patience:
            while await self._line() != _READY:
                pass
        if patience.cancelled_caught:
            self.give_up()
            raise HandOverError(f"The new daemon was not ready within {READY_WITHIN:.0f} s")

    async def _line(self) -> bytes:
        """The next line that it sends."""
        line, said = trio.socket.from_stdlib_socket(self._talk), b""
        while not said.endswith(b"\n"):
            one = await line.recv(1)
            if not one:
                self._talk.close()
                self._process.wait()
                raise HandOverError("The new daemon ended before it was ready; its log says why")
            said += one
        if said != _READY:
            self._orphan = int(said)
            self._process.wait()  # its parent has ended: that made it an orphan
        return said

    def let_go(self, *, to_stop: bool = False) -> None:
        """Tell the new daemon to take over, and with ``to_stop`` to stop in order right after.

        That is not told by a signal: one sent to the whole process group has reached it already, and a second one
        means a stop at once. Raises ``HandOverError`` when it has ended meanwhile.
        """
        try:
            self._talk.send(_YOURS_TO_STOP if to_stop else _YOURS)
        except OSError as error:
            raise HandOverError(
                "The new daemon ended before it took over: start it again, the engines go on meanwhile"
            ) from error
        finally:
            self._talk.close()

    def give_up(self) -> None:
        """End the new daemon; the old one goes on."""
        self._talk.close()
        if self._orphan is None:
            self._process.terminate()
            return
        with contextlib.suppress(ProcessLookupError):  # it ran a moment ago, so the number is not reused
            os.kill(self._orphan, signal.SIGTERM)


@attrs.define(eq=False)
class StoppableService:
    """A service that can be ended before its tier is; its task then waits, since a service must not return."""

    _service: Service
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _ended: trio.Event = attrs.field(factory=trio.Event)

    @property
    def name(self) -> str:
        """That of the service."""
        return self._service.name

    async def run(self, *, task_status: trio.TaskStatus[object]) -> None:
        with self._scope:
            await self._service.run(task_status=task_status)
        self._ended.set()
        await trio.sleep_forever()

    async def give_up(self) -> None:
        """Cancel the service and wait for its orderly end."""
        self._scope.cancel()
        await self._ended.wait()

"""Handing over to the program as now installed: the listening sockets, the data directory and the engines go on.

The old daemon starts the new one with its sockets and its lock. The new one loads all it needs and says so; only then
does the old one stop taking connections (those that come meanwhile wait in the sockets' queues), give up store, control
loops and workers, and tell the new one to go ahead. What is under way in the old one is finished for a bounded time.
Nothing is given up before the new one has said that it is ready, so one that cannot start changes nothing.

The new one is no child of the old one but an orphan, which makes it a child of systemd: of a main process that is
somebody else's child systemd does not see the end, and kills it at once where it should wait for it to stop.
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
    """The new daemon did not come up; the old one goes on as before."""


@attrs.frozen(kw_only=True)
class Inheritance:
    """What a daemon was given by the one before it: descriptors, by what they are for."""

    doors: Mapping[str, Sequence[int]]
    lock: int
    talk: int

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Inheritance | None:
        """From our environment; ``None`` in a daemon that was started afresh."""
        text = env.get(VARIABLE)
        if text is None:
            return None
        said = json.loads(text)
        if said["for"] != os.getppid():
            return None  # an engine or a shell of ours passed the variable on
        return cls(doors=said["doors"], lock=said["lock"], talk=said["talk"])


@attrs.define
class PredecessorLink:
    """The side of the new daemon. ``is_to_stop``: a stop was asked of the old one while it handed over."""

    _talk: socket.socket
    is_to_stop: bool = False

    @classmethod
    def of(cls, inherited: Inheritance) -> PredecessorLink:
        """Take the line to the old daemon and go on as an orphan. Nothing may be open or running yet."""
        talk = socket.socket(fileno=inherited.talk)
        talk.set_inheritable(False)
        if os.fork():
            os._exit(0)
        with contextlib.suppress(BrokenPipeError):  # the old one is gone, which ``take_over`` will tell
            talk.send(b"%d\n" % os.getpid())
        return cls(talk)

    async def take_over(self) -> None:
        """Say that all is loaded and wait until the old daemon has let go of everything.

        Raises ``HandOverError`` when it ends or changes its mind instead.
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
    """The side of the old daemon, while the new one loads."""

    _process: subprocess.Popen[bytes]
    _talk: socket.socket
    _orphan: int | None = None

    @classmethod
    def start(cls, argv: Sequence[str], doors: Mapping[str, Sequence[int]], lock: int) -> SuccessorProcess:
        """Start ``gpustack start *argv`` as now installed, with what it inherits. Raises ``HandOverError``."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise HandOverError(f"The new daemon cannot be started: {error.strerror}") from error
        descriptors = [*(one for door in doors.values() for one in door), lock, theirs.fileno()]
        said = {"for": os.getpid(), "doors": doors, "lock": lock, "talk": theirs.fileno()}
        # Which process systemd watches is told later, by us; the new one's own number is not known here.
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
        """The number of the new daemon, once it is ready."""
        assert self._orphan is not None
        return self._orphan

    async def ready(self) -> None:
        """Wait until the new daemon has loaded. Raises ``HandOverError`` when it ends instead or takes too long."""
        with trio.move_on_after(READY_WITHIN) as patience:
            while await self._line() != _READY:
                pass
        if patience.cancelled_caught:
            self.give_up()
            raise HandOverError(f"The new daemon was not ready within {READY_WITHIN:.0f} s")

    async def _line(self) -> bytes:
        """The next thing it says: its number, then that it is ready."""
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
            self._process.wait()  # it has ended: that is what made the new daemon an orphan
        return said

    def let_go(self, *, to_stop: bool = False) -> None:
        """Tell the new daemon that everything is its own now, and with ``to_stop`` that it is to end in order.

        Not by a signal: one that was sent to the whole process group has reached it already, and a second one would
        mean a stop at once. Raises ``HandOverError`` when it has ended meanwhile.
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
        """End the new daemon; we go on."""
        self._talk.close()
        if self._orphan is None:
            self._process.terminate()
            return
        with contextlib.suppress(ProcessLookupError):  # it lived a moment ago, so the number is its own
            os.kill(self._orphan, signal.SIGTERM)


@attrs.define(eq=False)
class StoppableService:
    """A service that can be ended before its tier is: it finishes as on a stop, then its place is held empty."""

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
        """End the service and wait until it has."""
        self._scope.cancel()
        await self._ended.wait()

"""Runs one command of an installation: read line by line, kept in a log, and ended with all that it started."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.disk import disk
from gpustack.artifacts.install_output import LONGEST_LINE, InstallOutput
from gpustack.artifacts.installer import InstallCommand
from gpustack.nursery.adopt import adopt, end_remains
from gpustack.nursery.group import ExitStatus, ProcessGroup
from gpustack.nursery.process import spawn_group
from gpustack.nursery.state import GroupState, forget_state, read_states

_LOG_LIMIT = 4 << 20
"""Bytes of the output of one installation that are kept."""
_CHUNK = 64 << 10
_GRACE = 5.0
_LOOK_EVERY = 1.0
_TELL_EVERY = 5.0

Tell = Callable[[str], None]
"""Is told in a sentence how far an installation is."""


@attrs.define(eq=False)
class InstallProgress:
    """What is told of an installation while it runs: each new phase, and every few seconds that it goes on."""

    title: str
    tell: Tell
    clock: Callable[[], float]
    output: InstallOutput = attrs.field(factory=InstallOutput)
    _since: float = attrs.field(init=False)
    _told: tuple[str, float] = ("", 0.0)

    def __attrs_post_init__(self) -> None:
        self._since = self.clock()
        self.tell_now_and_then()

    @property
    def seconds(self) -> float:
        return self.clock() - self._since

    def tell_now_and_then(self) -> None:
        phase, at = self._told
        if self.output.phase != phase or self.seconds - at >= _TELL_EVERY:
            self._told = (self.output.phase, self.seconds)
            self.tell(f"{self.title}: {self.output.phase}, {self.seconds:.0f} s so far")


@attrs.define(eq=False)
class InstallJournal:
    """Cuts what an installer writes into lines, and keeps them in a log without the secrets in them."""

    progress: InstallProgress
    _log_fd: int | None
    _rest: bytes = b""
    _written: int = 0

    def take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            if line.strip():
                self._keep(self.progress.output.feed(line.decode("utf-8", "replace")))

    def _keep(self, line: str) -> None:
        data = f"{line}\n".encode()
        self._written += len(data)
        if self._log_fd is not None and self._written <= _LOG_LIMIT:
            with suppress(OSError):  # a full disk is told by the installer
                os.write(self._log_fd, data)


async def run_command(
    command: InstallCommand,
    env: Mapping[str, str],
    journal: InstallJournal,
    state_file: Path,
    deadline: float,
) -> str | None:
    """Run it; ``None`` when it succeeded, else how it ended (``failed (exit code 1)``).

    Its process group is gone when this returns or raises, also when it is cancelled. Raises OSError when it cannot be
    started. ``state_file`` lets the next daemon end it, if this one is killed.
    """
    await disk.run(lambda: state_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700))
    reading, writing = os.pipe()
    ended = None
    async with trio.lowlevel.FdStream(reading) as stream:
        try:
            group = await spawn_group(
                command.argv, env={**env, **command.env}, log=writing, state_file=state_file
            )
        finally:
            os.close(writing)
        try:
            with trio.move_on_after(deadline):
                await _follow(stream, group, journal)
                ended = await group.wait()
        finally:
            if await group.end(_GRACE) is not None:
                forget_state(state_file)
    if ended is None:
        return f"did not end within {deadline:g} s"
    return None if ended.code == 0 else f"failed ({_in_words(ended)})"


async def end_former_commands(states: Path) -> None:
    """End what a daemon that was killed left running: it would write into what this one makes."""
    for state in await disk.run(read_states, states):
        if not isinstance(state, GroupState) or state.path is None:
            continue
        group = adopt(state)
        ended = await end_remains(state, _GRACE) if group is None else await group.end(_GRACE) is not None
        if ended:
            forget_state(state.path)


async def _follow(stream: trio.lowlevel.FdStream, group: ProcessGroup, journal: InstallJournal) -> None:
    """Read until the end of the stream, or of the leader: what it left behind may keep the stream open."""
    while True:
        with trio.move_on_after(_LOOK_EVERY) as pause:
            chunk = await stream.receive_some(_CHUNK)
            if not chunk:
                return
            journal.take(chunk)
        journal.progress.tell_now_and_then()
        if pause.cancelled_caught and not group.alive:
            return


def _in_words(ended: ExitStatus) -> str:
    if ended.signal is not None:
        return f"ended by {signal.Signals(ended.signal).name}"
    return f"exit code {ended.code}"

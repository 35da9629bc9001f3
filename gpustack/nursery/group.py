"""A process group: waits for its leader, and ends all of its processes."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from typing import Protocol

import attrs
import trio

from .limiter import threads
from .process_identity import members, read_stat
from .state import GroupState

log = logging.getLogger(__name__)

KILL_WITHIN = 5.0
"""Seconds to wait for a group after SIGKILL; a process stuck in a driver may take longer."""

_LOOK_AGAIN = 0.05
_KILL_AGAIN = 1.0
_scans = threads("process scans", 2)


@attrs.frozen
class ExitStatus:
    """How a process ended: its exit code or the signal. Both are None if only its parent could know."""

    code: int | None
    signal: int | None


class GroupLeader(Protocol):
    """The first process of a group: a child, adopted, or ended."""

    @property
    def pinned(self) -> bool:
        """Whether its pid cannot be reused yet, because it is our child and not reaped."""

    def poll(self) -> ExitStatus | None:
        """How it ended, or None while it runs."""

    async def wait(self) -> ExitStatus:
        """Return how it ended, once it has. Cancellable."""

    def release(self) -> None:
        """Free the pidfd and reap the process, after its end."""

    def abandon(self) -> None:
        """Free the pidfd and leave the process running."""


@attrs.define(eq=False, repr=False)
class ProcessGroup:
    """A process and all that it started which stayed in its group and session.

    The owner must call ``end`` at last, also after ``wait`` returned: only ``end`` removes processes that the leader
    left behind.
    """

    state: GroupState
    _leader: GroupLeader
    _over: ExitStatus | None = attrs.field(default=None, init=False)

    @property
    def pid(self) -> int:
        return self.state.pid

    @property
    def alive(self) -> bool:
        """Whether the leader is running."""
        return self._over is None and self._leader.poll() is None

    async def wait(self) -> ExitStatus:
        """Return how the leader ended, once it has. Cancellable; several tasks may wait."""
        if self._over is not None:
            await trio.lowlevel.checkpoint()
            return self._over
        return await self._leader.wait()

    async def end(self, grace: float) -> ExitStatus | None:
        """Send SIGTERM to the group, SIGKILL after ``grace`` seconds to what is left, then release it.

        Returns how the leader ended; None if a process of the group survived SIGKILL (it hangs in the kernel), so that
        memory and port may still be in use: try again later. Not cancellable; takes at most ``grace + KILL_WITHIN``
        seconds. A second call does nothing.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + grace + KILL_WITHIN):
            if self._over is None:
                await self._end(grace)
        if self._over is None:
            log.error("Process group %d is still there after KILL", self.pid)
        return self._over

    def leave(self) -> None:
        """Release it and leave it running, for the next daemon to adopt. The object must not be used afterwards."""
        if self._over is None:
            self._over = ExitStatus(code=None, signal=None)
            self._leader.abandon()

    async def _end(self, grace: float) -> None:
        await self._signal(signal.SIGTERM)
        with trio.move_on_after(grace) as patience:
            await self._wait_for_all()
        if patience.cancelled_caught:
            log.warning("Process group %d ignored TERM for %.1f s, killing it", self.pid, grace)
            await self._kill()
        exit_ = self._leader.poll()
        if exit_ is not None:
            self._over = exit_
            self._leader.release()

    async def _wait_for_all(self) -> None:
        await self._leader.wait()
        while await self._has_members():  # noqa: ASYNC110  nobody tells us when a process that is not our child ends
            await trio.sleep(_LOOK_AGAIN)

    async def _kill(self) -> None:
        while True:  # one that was born while members were signalled one by one gets the next round
            await self._signal(signal.SIGKILL)
            with trio.move_on_after(_KILL_AGAIN):
                await self._wait_for_all()
                return

    async def _has_members(self) -> bool:
        """Whether processes of the group are left after its leader."""
        found = await _scans.run(members, self.pid, self.state.start_ticks)
        return _answers(self.pid) if found is None else bool(found)

    async def _signal(self, number: signal.Signals) -> None:
        if self._leader.pinned or self._leader.poll() is None:
            _signal_group(self.pid, number)
            return
        # The leader has ended and was not our child, so its pid may be reused. Each member is opened as a pidfd and
        # checked again before it is signalled.
        found = await _scans.run(members, self.pid, self.state.start_ticks)
        if found is None:  # no /proc, so it was a child of ours that was just reaped
            _signal_group(self.pid, number)
            return
        for pid in found:
            _signal_member(pid, self.pid, number)

    def __repr__(self) -> str:
        if self._over is not None:
            return f"<ProcessGroup {self.pid}: ended, {_in_words(self._over)}>"
        exit_ = self._leader.poll()
        return f"<ProcessGroup {self.pid}: {'running' if exit_ is None else f'leader {_in_words(exit_)}'}>"


async def wait_pidfd(pidfd: int) -> None:
    """Return once the process has ended. Cancellable; several tasks may wait, as each waits on its own duplicate."""
    own = os.dup(pidfd)
    try:
        await trio.lowlevel.wait_readable(own)
    finally:
        os.close(own)


def pidfd_ended(pidfd: int) -> bool:
    """Whether the process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for dead ones
        os.killpg(group, number)


def _signal_member(pid: int, group: int, number: signal.Signals) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # gone
        return
    try:
        now = read_stat(pid)
        if now is not None and now.group == now.session == group:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def _answers(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _in_words(exit_: ExitStatus) -> str:
    if exit_.signal is not None:
        return f"ended by {signal.Signals(exit_.signal).name}"
    return "exit code unknown" if exit_.code is None else f"exit code {exit_.code}"

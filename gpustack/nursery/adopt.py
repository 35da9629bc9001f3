"""Adopts process groups that a former daemon started and left running."""

from __future__ import annotations

import os
from contextlib import suppress

import attrs

from .group import ExitStatus, ProcessGroup, pidfd_ended, wait_pidfd
from .process_identity import ProcessIdentity, boot_id, identity_of, read_stat
from .state import GroupState

_UNKNOWN = ExitStatus(code=None, signal=None)  # only the parent learns how a process ended


@attrs.define(eq=False)
class _AdoptedLeader:
    """A leader that is not a child of this process."""

    _pidfd: int
    pinned: bool = False
    _exit: ExitStatus | None = None

    def poll(self) -> ExitStatus | None:
        if self._exit is None and pidfd_ended(self._pidfd):
            self._exit = _UNKNOWN
        return self._exit

    async def wait(self) -> ExitStatus:
        if self._exit is None:
            await wait_pidfd(self._pidfd)
        return _UNKNOWN

    def release(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def abandon(self) -> None:
        self.release()

    def __del__(self) -> None:
        with suppress(OSError):
            self.release()


@attrs.frozen
class _EndedLeader:
    """A leader that has ended."""

    pinned: bool = False

    def poll(self) -> ExitStatus:
        return _UNKNOWN

    async def wait(self) -> ExitStatus:
        return _UNKNOWN

    def release(self) -> None:
        pass

    def abandon(self) -> None:
        pass


def adopt(state: GroupState) -> ProcessGroup | None:
    """The group that ``state`` describes, to wait for and to end like one started here; its exit code is unknown.

    None if its leader has ended, if its pid now belongs to another process, or where the system has no pidfd (then
    nothing is adopted). The process is checked after a pidfd to it is open, so that the process checked is the one
    signalled later.
    """
    if state.boot_id is None or state.start_ticks is None or not hasattr(os, "pidfd_open"):
        return None
    try:
        pidfd = os.pidfd_open(state.pid)
    except OSError:  # no such process, or a kernel without
        return None
    leader = _AdoptedLeader(pidfd)
    same = identity_of(state.pid) == ProcessIdentity(state.boot_id, state.start_ticks)
    found = read_stat(state.pid)
    if not same or found is None or found.group != state.pid or leader.poll() is not None:
        leader.release()
        return None
    return ProcessGroup(state, leader)


def leader_runs(state: GroupState) -> bool:
    """Whether the leader that ``state`` describes runs at this moment."""
    return identity_of(state.pid) == ProcessIdentity(state.boot_id or "", state.start_ticks or 0)


async def end_remains(state: GroupState, grace: float) -> bool:
    """End the processes that a leader which has ended left in its group; True if none is left.

    For states that ``adopt`` refused, before they are forgotten: a child process of an engine that outlived its leader
    still holds memory on a device. Signals only processes in the group and session of that number, of the same boot,
    and none if the number belongs to a new process. Not cancellable; takes at most ``grace + KILL_WITHIN`` seconds.
    """
    if state.start_ticks is None or state.boot_id is None or state.boot_id != boot_id():
        return True
    return await ProcessGroup(state, _EndedLeader()).end(grace) is not None

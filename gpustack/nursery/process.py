"""Starts processes that outlive the daemon, each with a state file on disk before it begins; and reaps orphans."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs
import trio

from .group import ExitStatus, ProcessGroup, pidfd_ended, wait_pidfd
from .limiter import threads
from .log_file import LogFile
from .process_identity import identity_of, read_stat
from .state import GroupState, forget_state, write_state

# Waits for one line, then becomes the program. End of file means that the daemon died first: there may be no state
# file then, and the program must not begin.
_GATE = 'read -r _ || exit 125; exec "$@" </dev/null'
_LOOK_AGAIN = 0.1
_spawns = threads("process spawns", 4)
_orphan_scans = threads("orphans", 1)
_leaders: weakref.WeakSet[_ChildLeader] = weakref.WeakSet()


@attrs.define(eq=False)
class _ChildLeader:
    """A leader that is a child of this process. It is not reaped before ``release``, so that its pid is not reused
    while its group is signalled."""

    _popen: subprocess.Popen[bytes]
    _pidfd: int | None
    _exit: ExitStatus | None = None

    def __attrs_post_init__(self) -> None:
        _leaders.add(self)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def pinned(self) -> bool:
        return self._popen.returncode is None

    def poll(self) -> ExitStatus | None:
        if self._exit is None:
            self._exit = self._look()
        return self._exit

    async def wait(self) -> ExitStatus:
        while (exit_ := self.poll()) is None:
            if self._pidfd is None:
                await trio.sleep(_LOOK_AGAIN)
            else:
                await wait_pidfd(self._pidfd)
        await trio.lowlevel.checkpoint()
        return exit_

    def release(self) -> None:
        self._popen.wait()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def abandon(self) -> None:
        if self._popen.returncode is None:
            self._popen.returncode = 0  # else Popen warns, and tries to reap it later
        self.release()

    def _look(self) -> ExitStatus | None:
        if self._pidfd is None:  # without a pidfd a look also reaps
            code = self._popen.poll()
            return None if code is None else _exit(code)
        if not pidfd_ended(self._pidfd):
            return None
        found = os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        return _exit(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)


def _leader_pids() -> frozenset[int]:
    """The pids of leaders that were started here and are not reaped: only their group may wait for them."""
    return frozenset(one.pid for one in _leaders if one.pinned)


async def spawn_group(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: LogFile | int,
    cwd: Path | None = None,
    state_file: Path | None = None,
    port: int | None = None,
    generation: int = 0,
    meta: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ProcessGroup:
    """Start ``argv`` as the leader of a new session, with exactly ``env`` as its environment, in ``cwd`` (or ours).

    Its output goes directly to ``log`` (a log file to open, or an open file descriptor, which stays open here) and its
    input is empty, so that it does not depend on this daemon and survives it. ``state_file`` is on disk before the
    program begins; if the daemon dies in between, the program never begins. Secrets belong in ``env``: every user can
    see ``argv``. ``meta`` and ``secrets`` are stored in the state file.

    Raises FileNotFoundError for a program that is missing or not executable, OSError if the process, log or state file
    cannot be made. Cancelled, it leaves no process and no state file behind.
    """
    program = _program(argv[0], env)
    gate, opener = os.pipe()
    try:
        try:
            popen = await _spawns.run(_popen, [program, *argv[1:]], env, cwd, log, gate)
        finally:
            os.close(gate)
        group = _group_of(popen, port, generation, meta or {}, secrets or {}, now())
        try:
            _give_up_protection(popen.pid)
            if state_file is not None:
                await _spawns.run(write_state, state_file, group.state)
            await trio.lowlevel.checkpoint_if_cancelled()
            os.write(opener, b"\n")
        except BaseException:
            await _undo(group, state_file)
            raise
    finally:
        os.close(opener)
    return group


def _program(name: str, env: Mapping[str, str]) -> str:
    """The absolute path of the program, so that a missing one is an error here and not a line in its log."""
    found = shutil.which(name) if os.sep in name else shutil.which(name, path=env.get("PATH", os.defpath))
    if found is None:
        raise FileNotFoundError(f"there is no program {name}")
    return str(Path(found).absolute())


def _popen(
    argv: list[str], env: Mapping[str, str], cwd: Path | None, log: LogFile | int, gate: int
) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as stack:
        out = log if isinstance(log, int) else stack.enter_context(log.opened())
        return subprocess.Popen(
            ["/bin/sh", "-c", _GATE, "gate", *argv],
            env=dict(env),
            cwd=cwd,
            stdin=gate,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _group_of(
    popen: subprocess.Popen[bytes],
    port: int | None,
    generation: int,
    meta: Mapping[str, str],
    secrets: Mapping[str, str],
    now: datetime,
) -> ProcessGroup:
    who = identity_of(popen.pid)
    state = GroupState(
        pid=popen.pid,
        boot_id=who.boot_id if who else None,
        start_ticks=who.start_ticks if who else None,
        started_at=now,
        port=port,
        generation=generation,
        meta=dict(meta),
        secrets=dict(secrets),
    )
    return ProcessGroup(state, _ChildLeader(popen, _pidfd(popen.pid)))


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or a kernel without
        return None


def _give_up_protection(pid: int) -> None:
    """Reset the OOM score of the child, which it inherits from a daemon that is protected from the OOM killer."""
    with contextlib.suppress(OSError, ValueError):
        if int(Path("/proc/self/oom_score_adj").read_text("ascii")) < 0:
            Path(f"/proc/{pid}/oom_score_adj").write_text("0", "ascii")


async def _undo(group: ProcessGroup, state_file: Path | None) -> None:
    await group.end(grace=1.0)
    if state_file is not None:
        forget_state(state_file)


def _exit(code: int) -> ExitStatus:
    return ExitStatus(code=code, signal=None) if code >= 0 else ExitStatus(code=None, signal=-code)


def module_command(module: str, *arguments: str, python: str = sys.executable) -> tuple[str, ...]:
    """The command that runs ``module`` with this Python, or the one given.

    ``-P``: without it Python would look first in the working directory, and run what lies there under a name that
    the module imports, as the daemon's user.
    """
    return (python, "-P", "-m", module, *arguments)


@attrs.define
class OrphanReaper:
    """A service. An orphan differs from a child of ours only in that nobody waits for it: an ended child that was there
    at the check before, and leads no group of ours, is reaped.
    """

    every: float = 5.0
    """Seconds between two checks."""
    reaped: int = 0
    name: str = "orphans"
    _ended: frozenset[int] = frozenset()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await trio.sleep(self.every)
            found = await _orphan_scans.run(ended_children, os.getpid(), abandon=True) - _leader_pids()
            for pid in found & self._ended:
                self.reaped += _reap(pid)
            self._ended = found


def ended_children(parent: int) -> frozenset[int]:
    """The pids of children of a process that have ended and are not reaped; empty where there is no /proc."""
    numbers = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    stats = [read_stat(number) for number in numbers]
    return frozenset(stat.pid for stat in stats if stat is not None and stat.dead and stat.parent == parent)


def _reap(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # it was reaped meanwhile
        return False

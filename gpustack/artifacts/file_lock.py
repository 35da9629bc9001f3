"""Locks on files between the tasks of this process and with other processes; none outlives its process."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.disk import disk

_LOOK_AGAIN = 0.5
"""Seconds between tries to get a lock of another process: the kernel does not say when it is released."""


@attrs.define(eq=False)
class _CountedLock:
    """The lock of one path within this process; it is dropped when ``users`` (holder and waiters) is 0."""

    lock: trio.Lock = attrs.field(factory=trio.Lock)
    users: int = 0


@attrs.define(eq=False, repr=False)
class FileLocks:
    """Exclusive locks on paths. ``folder`` holds an empty file for every path that was ever locked.

    Between processes it is ``flock`` on that file: the kernel releases it with the holder, also after kill -9.
    """

    folder: Path
    _turns: dict[Path, _CountedLock] = attrs.field(factory=dict)

    @contextlib.asynccontextmanager
    async def hold(self, path: Path) -> AsyncIterator[None]:
        """Hold the lock on ``path`` within the block. Waiting is cancellable. Raises OSError for an unusable folder."""
        turn = self._turns.setdefault(path, _CountedLock())
        turn.users += 1
        try:
            async with turn.lock:
                descriptor = await disk.run(self._open, path)
                try:
                    while not _locked(descriptor):  # noqa: ASYNC110  # another process sets no event
                        await trio.sleep(_LOOK_AGAIN)
                    yield
                finally:
                    os.close(descriptor)  # and with it goes the lock
        finally:
            turn.users -= 1
            if turn.users == 0:
                del self._turns[path]

    def _open(self, path: Path) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(os.fsencode(path)).hexdigest()
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def __repr__(self) -> str:
        waiting = sum(turn.users for turn in self._turns.values()) - len(self._turns)
        return f"<FileLocks: {len(self._turns)} held, {waiting} waiting>"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

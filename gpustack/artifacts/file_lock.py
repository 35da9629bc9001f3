"""Who may fetch a file right now: one task of one process, and no claim outlives its process."""

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
"""Seconds between looks at a claim of another process: the kernel tells nobody when it is given up."""


@attrs.define(eq=False)
class _CountedLock:
    """A path somebody wants: who has it and how many wait are known to the lock."""

    lock: trio.Lock = attrs.field(factory=trio.Lock)
    users: int = 0


@attrs.define(eq=False, repr=False)
class FileLocks:
    """Claims on paths. ``folder`` holds an empty file for every path that was ever claimed.

    Between processes the claim is a lock of the kernel on the open file: it is gone with its holder, also by kill -9.
    """

    folder: Path
    _turns: dict[Path, _CountedLock] = attrs.field(factory=dict)

    @contextlib.asynccontextmanager
    async def hold(self, path: Path) -> AsyncIterator[None]:
        """Wait until nobody else has ``path``, then have it. Raises OSError when the folder cannot be written."""
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
        return f"<Claims: {len(self._turns)} held, {waiting} waiting>"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

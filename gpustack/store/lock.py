"""A lock on a file that ends with its process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import attrs

from gpustack.errors import Unavailable

WAIT_SECONDS = 10.0
"""Seconds to wait for another holder: at a hand-over two daemons run for a moment."""


@attrs.define(eq=False)
class FileLock:
    """An exclusive ``flock``, held by one open file in one process; the kernel releases it when the process ends."""

    path: Path
    wait: float = WAIT_SECONDS
    _fd: int | None = None

    def acquire(self) -> None:
        """Take the lock, waiting up to ``wait`` seconds; raises ``Unavailable`` that names the holder. Blocks."""
        if self._fd is not None:
            return
        try:
            fd = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"The lock file {self.path} cannot be opened ({error.strerror})") from error
        deadline = time.monotonic() + self.wait
        while not _try_lock(fd):
            if time.monotonic() > deadline:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
                os.close(fd)
                raise Unavailable(
                    f"The database beside {self.path} is in use by another gpustack"
                    f"{f' (process {holder})' if holder else ''}: stop it, or choose another --data-dir"
                )
            time.sleep(0.02)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Release the lock, if it is held. The file stays: its removal would race with processes that wait for it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

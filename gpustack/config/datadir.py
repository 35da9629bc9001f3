"""The data directory: made private, held by one daemon at a time, and never another product's."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from gpustack.config.permission import Exposure, alien, exchangeable, writable
from gpustack.errors import GpustackError

_LOCK = "lock"
_DATABASE = "database.db"
SECRETS = (
    *("token", "jwt_secret_key", "initial_admin_password", "worker_credential", "server_uuid"),
    *("run", _DATABASE, f"{_DATABASE}-wal"),
)
"""What in the directory is believed or kept from others, by name."""
_FOREIGN = frozenset({"alembic_version", "model_instances"})
_OURS = "changes"


class DataDirError(GpustackError):
    """The data directory cannot be used. The sentence says why and names ``--data-dir``."""


def make_dir(path: Path) -> None:
    """Make the directory and what leads to it; a new one is the owner's alone. Raises DataDirError."""
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def refuse_open_dir(path: Path) -> None:
    """Raise DataDirError when other users can write in the directory, change a secret in it, or put another there.

    It decides what programs this daemon runs, and whom it lets in.
    """
    if found := openings(path):
        raise DataDirError(
            f"{'; '.join(map(str, found))}. Look whether what is there is still yours first, or choose another "
            "directory with --data-dir."
        )


def openings(path: Path) -> list[Exposure]:
    """Each way in which other users can write in the directory, change a secret in it, or put another there."""
    secrets = [path / name for name in SECRETS]
    ways = (exchangeable(path), *(way(one) for one in (path, *secrets) for way in (writable, alien)))
    return [way for way in ways if way is not None]


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise DataDirError(
            f"The data directory {path} cannot be used: {why}. Choose another with --data-dir."
        ) from error


class DataLock:
    """Holds a data directory until ``close`` or the end of the process, its children included if they inherit."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def __repr__(self) -> str:
        return f"<DataLock {self.path} {'released' if self._fd < 0 else 'held'}>"

    def fileno(self) -> int:
        """The descriptor to pass to a process that takes over; give it to ``lock_data_dir`` there."""
        return self._fd

    def sign(self) -> None:
        """Say in the file that this process holds it: one that was to take over may have said so before it ended."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let go, unless another process shares the lock: then that one holds it on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> DataLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_data_dir(path: Path, *, inherited: int | None = None) -> DataLock:
    """Take the data directory at ``path`` for this process, or raise DataDirError with the holder's pid.

    ``inherited`` is the descriptor of a lock that the process before this one held: its lock goes on without
    a gap. Needs a system with flock.
    """
    import fcntl

    file = path / _LOCK
    with _told(path):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(file, flags, 0o600) if inherited is None else inherited
        try:
            if inherited is not None:
                _same_file(fd, file)
                os.set_inheritable(fd, False)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock = DataLock(path, fd)
            lock.sign()
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            by = f" (process {holder})" if holder.isdigit() else ""
            raise DataDirError(
                f"The data directory {path} is in use by another GPUStack{by}. Stop that one, or give this one a "
                "directory of its own with --data-dir."
            ) from None
        except OSError:
            os.close(fd)
            raise
    return lock


def _same_file(fd: int, file: Path) -> None:
    ours, there = os.fstat(fd), file.stat()
    if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
        raise OSError(errno.ESTALE, "the lock handed over belongs to another directory")


def refuse_foreign_database(path: Path) -> None:
    """Raise DataDirError when the directory holds a database that an existing GPUStack wrote, not this one.

    Looks at the names of its tables and changes nothing.
    """
    import sqlite3

    file = path / _DATABASE
    if not file.exists() or file.stat().st_size == 0:
        return
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 1000")
            tables = {str(row[0]) for row in rows}
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DataDirError(
            f"The database {file} cannot be read ({error}). Move it away, or choose another directory with "
            "--data-dir."
        ) from error
    if tables >= _FOREIGN and _OURS not in tables:
        raise DataDirError(
            f"The data directory {path} holds the database of another GPUStack, which is never changed in "
            "place. Choose another directory with --data-dir."
        )

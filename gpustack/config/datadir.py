"""The data directory: private to its owner, locked by one daemon at a time, and never one of another product."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from gpustack.config.permission import (
    Exposure,
    owned_by_another,
    replaceable_by_others,
    writable_by_others,
)
from gpustack.errors import GpustackError

_LOCK = "lock"
_DATABASE = "database.db"
SECRET_FILES = ("token", "jwt_secret_key", "initial_admin_password", "worker_credential")
"""Names of the files in the directory that hold a secret and nothing else."""
SECRETS = (*SECRET_FILES, "server_uuid", "run", _DATABASE, f"{_DATABASE}-wal")
"""Names of files and folders in the directory that are secret, or that the daemon trusts."""
_FOREIGN = frozenset({"alembic_version", "model_instances"})
_OURS = "changes"


class DataDirError(GpustackError):
    """The data directory, or a file in it, cannot be used; the sentence says why and what to do."""


def make_dir(path: Path) -> None:
    """Make the directory and its parents; a new directory gets mode 0700. Raises DataDirError."""
    with _os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def refuse_open_dir(path: Path) -> None:
    """Raise DataDirError when other users can change or replace the directory, or a secret in it.

    What the directory holds decides which programs the daemon runs and whom it admits.
    """
    if found := exposures(path):
        raise DataDirError(
            f"{'; '.join(map(str, found))}. Look whether what is there is still yours first, or choose another "
            "directory with --data-dir."
        )


def exposures(path: Path) -> list[Exposure]:
    """Every way in which other users can change or replace the directory, or a secret in it."""
    secrets = [path / name for name in SECRETS]
    checks = (writable_by_others, owned_by_another)
    found = (replaceable_by_others(path), *(check(one) for one in (path, *secrets) for check in checks))
    return [one for one in found if one is not None]


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Turn OSError into DataDirError."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise DataDirError(
            f"The data directory {path} cannot be used: {why}. Choose another with --data-dir."
        ) from error


class DataLock:
    """The lock on a data directory, held until ``close`` or until the process, and all that inherited it, are gone."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def __repr__(self) -> str:
        return f"<DataLock {self.path} {'released' if self._fd < 0 else 'held'}>"

    def fileno(self) -> int:
        """The file descriptor, for a process that takes over: it passes it to ``lock_data_dir``."""
        return self._fd

    def sign(self) -> None:
        """Write our pid into the lock file. A process that failed to take over may have written its own there."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Release the lock; a process that inherited the descriptor keeps holding it."""
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
    """Lock the data directory at ``path``; raises DataDirError with the pid of the holder when it is locked.

    ``inherited`` is the descriptor of the lock that a previous process held: then the lock is taken over without a
    gap. Does not wait. Needs a system with flock.
    """
    import fcntl

    file = path / _LOCK
    with _os_errors(path):
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
    """Raise DataDirError when the directory holds the database of the other product of this name, or cannot be read.

    Reads the names of the tables (blocking) and changes nothing.
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

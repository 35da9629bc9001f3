"""The disk under the model files: the threads that read and write it, its faults, and its free space."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

from gpustack.errors import Unavailable
from gpustack.nursery.limiter import threads

disk = threads("model files", 8)


class NoSpace(Unavailable):
    """The disk has too little space for the files, or ran out of it. ``short`` is how many bytes are lacking, where
    that is known."""

    def __init__(self, message: str, short: int | None = None) -> None:
        self.short = short
        super().__init__(message)


class CorruptFile(Unavailable):
    """A file is not what the source announced, or an archive cannot be unpacked."""


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's quota of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def free_bytes(folder: Path) -> int:
    """The free space of the disk that ``folder`` lies on, or will lie on: it need not exist yet. Blocking."""
    for place in (folder, *folder.parents):
        if place.exists():
            return shutil.disk_usage(place).free
    return 0


def mount_of(folder: Path, mounts: Iterable[str]) -> str | None:
    """Which of these mount points has the file system that ``folder`` lies on, or will lie on; ``None`` if none has.
    Blocking."""
    try:
        place = next(one for one in (folder, *folder.parents) if one.exists())
        device = place.stat().st_dev
    except (OSError, StopIteration):
        return None
    return next((mount for mount in mounts if _device_of(mount) == device), None)


def _device_of(mount: str) -> int | None:
    try:
        return Path(mount).stat().st_dev
    except OSError:
        return None


def has_size(path: Path, size: int) -> bool:
    """Whether there is a file of ``size`` bytes at ``path``. Blocking."""
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False

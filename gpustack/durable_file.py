"""Replaces a file as a whole: after a crash or a power cut a reader finds the old content or the new, never a part.

A draft in the same folder is written, synced and renamed over the file, and the folder is synced. All functions
block and raise OSError.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_CANNOT_SYNC = (errno.EBADF, errno.EINVAL, errno.EACCES)
"""The first two as in PostgreSQL's ``fsync_fname_ext``; the last for a folder that may be written in and not read."""


def draft_of(path: Path) -> Path:
    """Where the new content of ``path`` is written first, unless the caller names another place."""
    return path.with_name(f".{path.name}.draft")


@contextmanager
def replacing(
    path: Path, *, mode: int = 0o600, draft: Path | None = None, overwrite: bool = True, sync: bool = True
) -> Iterator[BinaryIO]:
    """Yield a new file; when the block ends, it takes the place of ``path``. If the block raises, ``path`` stays.

    ``mode`` are the permissions of the new file, less those that the umask takes away. ``draft`` is in the folder of
    ``path``. One that a crash left is removed first, so that writers that may run at the same time need a draft each.
    Without ``overwrite``, raises FileExistsError when there is a ``path``. Without ``sync``, a power cut may bring
    back an older content or an empty file: for notes that only save work.
    """
    draft = draft_of(path) if draft is None else draft
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(fd)
        if overwrite:
            draft.replace(path)
        else:
            os.link(draft, path)  # unlike a rename it refuses to overwrite
    finally:
        draft.unlink(missing_ok=True)
    if sync:
        sync_folder(path.parent)


def write(
    path: Path, content: bytes | str, *, mode: int = 0o600, draft: Path | None = None, sync: bool = True
) -> None:
    """Let ``path`` hold ``content``; text is written as UTF-8. The arguments are those of ``replacing``."""
    with replacing(path, mode=mode, draft=draft, sync=sync) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def put_in_place(finished: Path, path: Path) -> None:
    """Rename a file of the same folder that is complete to ``path``, with its content on disk before its name."""
    fd = os.open(finished, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    finished.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return once the names in ``folder`` are on disk, where that can be had: else it is passed over."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise

"""Which files and folders other users of the machine can alter or read, with the command that ends it."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

import attrs


@attrs.frozen
class Exposure:
    """How others get at something, as a sentence; ``fix`` is the command that ends it."""

    sentence: str
    fix: str

    def __str__(self) -> str:
        return f"{self.sentence}: {self.fix}"


def writable(path: Path) -> Exposure | None:
    """How others can write the file or folder by its mode; ``None`` where they cannot, or it is not there.

    A group in which nobody is but ourselves does not count: many systems give each user one.
    """
    if not _others_may(path, stat.S_IWGRP, stat.S_IWOTH):
        return None
    return Exposure(f"{path} can be written by other users", f"chmod go-w {shlex.quote(str(path))}")


def alien(path: Path) -> Exposure | None:
    """That the file or folder belongs to somebody who is neither root nor the user of this process."""
    found = _stat(path)
    if found is None or found.st_uid in (0, os.geteuid()):
        return None
    return Exposure(
        f"{path} belongs to another user ({found.st_uid})", f"chown {os.geteuid()} {shlex.quote(str(path))}"
    )


def readable(path: Path) -> Exposure | None:
    """How others can read the file by its mode; as ``writable``."""
    if not _others_may(path, stat.S_IRGRP, stat.S_IROTH):
        return None
    return Exposure(f"{path} can be read by other users", f"chmod go-r {shlex.quote(str(path))}")


def exchangeable(path: Path) -> Exposure | None:
    """A folder above, in which anybody can put something else in the place of what leads here.

    Not one like ``/tmp``, where each may remove only what is theirs.
    """
    for folder in path.resolve().parents:
        found = _stat(folder)
        if found is not None and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            return Exposure(
                f"{folder}, which leads to {path}, can be written by other users",
                f"chmod go-w {shlex.quote(str(folder))}",
            )
    return None


def _others_may(path: Path, group: int, anybody: int) -> bool:
    """Whether the mode lets others do it: the bit for the group, and that for everybody."""
    found = _stat(path)
    if found is None:
        return False
    return bool(found.st_mode & anybody or (found.st_mode & group and not _is_own_group(found.st_gid)))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _is_own_group(gid: int) -> bool:
    """Whether it is a group that bears our name and has no other member."""
    if gid != os.getegid():
        return False
    import grp
    import pwd

    try:
        group, own = grp.getgrgid(gid), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == own and not set(group.gr_mem) - {own}

"""Which files and folders other users of the machine can change or read, and the command that prevents it.

Every check is by the mode and owner of the file, blocks, and finds nothing where there is no file.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

import attrs


@attrs.frozen
class Exposure:
    """A way for other users to reach a file, as a sentence; ``fix`` is the shell command that closes it."""

    sentence: str
    fix: str

    def __str__(self) -> str:
        return f"{self.sentence}: {self.fix}"


def writable_by_others(path: Path) -> Exposure | None:
    """That others can write the file or folder.

    A group whose only member is our user does not count: many systems give each user such a group.
    """
    if not _others_may(path, stat.S_IWGRP, stat.S_IWOTH):
        return None
    return Exposure(f"{path} can be written by other users", f"chmod go-w {shlex.quote(str(path))}")


def owned_by_another(path: Path) -> Exposure | None:
    """That the file or folder belongs to a user other than root and the user of this process."""
    found = _stat(path)
    if found is None or found.st_uid in (0, os.geteuid()):
        return None
    return Exposure(
        f"{path} belongs to another user ({found.st_uid})", f"chown {os.geteuid()} {shlex.quote(str(path))}"
    )


def readable_by_others(path: Path) -> Exposure | None:
    """That others can read the file; groups count as in ``writable_by_others``."""
    if not _others_may(path, stat.S_IRGRP, stat.S_IROTH):
        return None
    return Exposure(f"{path} can be read by other users", f"chmod go-r {shlex.quote(str(path))}")


def replaceable_by_others(path: Path) -> Exposure | None:
    """That anybody can write in a folder above ``path``, and so put something else in its place.

    Folders with the sticky bit, such as ``/tmp``, do not count: there each user can remove only their own files.
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
    """Whether the mode has the bit ``anybody``, or the bit ``group`` and a group with other members."""
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
    """Whether the group has the name of our user and no other member."""
    if gid != os.getegid():
        return False
    import grp
    import pwd

    try:
        group, own = grp.getgrgid(gid), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == own and not set(group.gr_mem) - {own}

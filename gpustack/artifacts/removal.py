"""Removes model files, and nothing outside the given folders, whatever symbolic links there are."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from gpustack.artifacts.partial import unfinished_of
from gpustack.errors import Forbidden


def remove(path: Path, roots: Sequence[Path]) -> bool:
    """Remove the file or folder at ``path``, its unfinished parts, and folders that become empty.

    Returns whether it was there. ``path`` must lie within one of ``roots``. No symbolic link on the way is followed; a
    link at the end is removed itself. Blocking; raises Forbidden for a path outside, OSError when removal fails.
    """
    clean = Path(os.path.normpath(path))
    root = next((one for one in roots if clean.is_relative_to(one) and clean != one), None)
    if root is None or not path.is_absolute():
        raise Forbidden(f"{path} does not lie within the model cache, so it is not removed")
    *folders, name = clean.relative_to(root).parts
    with contextlib.ExitStack() as stack:
        try:
            chain = [_enter(stack, str(root), None, follow=True)]
            for folder in folders:
                chain.append(_enter(stack, folder, chain[-1], follow=False))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise Forbidden(f"{path} is reached over a symbolic link, so it is not removed") from error
        existed = _remove_entry(name, chain[-1])
        for unfinished in unfinished_of(clean):
            _remove_entry(unfinished.name, chain[-1])
        for parent, folder in reversed(list(zip(chain, folders, strict=False))):
            try:
                os.rmdir(folder, dir_fd=parent)
            except OSError:
                break  # not empty
    return existed


def _enter(stack: contextlib.ExitStack, name: str, parent: int | None, *, follow: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(name, flags, dir_fd=parent)
    stack.callback(os.close, descriptor)
    return descriptor


def _remove_entry(name: str, folder: int) -> bool:
    try:
        seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(seen.st_mode):
        shutil.rmtree(name, dir_fd=folder)  # follows no links either
    else:
        os.unlink(name, dir_fd=folder)
    return True

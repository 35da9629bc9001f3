"""Log files that programs write themselves: rotated at each run, bounded in size, and read by ``tail``."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import trio

from .limiter import threads

_CHUNK = 64 * 1024
_BACKLOG = 8 * 1024 * 1024
_LOOK_AGAIN = 0.2
_trims = threads("log trims", 1)


@attrs.frozen
class LogFile:
    """A log file of a program. Each run begins a new file; ``keep`` files of former runs are kept."""

    path: Path
    keep: int = 3

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Rotate, then yield a descriptor of the file, mode 0600, open for appending (so that it can be trimmed)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rotate_previous(self.path, self.keep)
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)


def previous(path: Path, number: int) -> Path:
    """The log of an earlier run, 1 for the last one: ``a.1.log``, ``a.2.log``."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def trimmed(path: Path) -> Path:
    """Where the end of the present log before its last trim is: ``a.cut.log``."""
    return path.with_name(f"{path.stem}.cut{path.suffix}")


def rotate_previous(path: Path, keep: int = 3) -> None:
    """Rename ``path`` and the logs of earlier runs by one; those beyond ``keep`` are removed."""
    if not path.exists():
        return
    trimmed(path).unlink(missing_ok=True)
    for number in range(keep, 0, -1):
        younger = previous(path, number - 1) if number > 1 else path
        with suppress(FileNotFoundError):
            younger.replace(previous(path, number))
    if keep == 0:
        path.unlink()


def trim(path: Path, limit: int) -> bool:
    """If the log is longer than ``limit`` bytes, copy its last ``limit`` bytes to ``trimmed`` and empty it; True if so.

    The writer goes on in the same file. What it writes between the copy and the cut is lost. Both files take at most
    twice ``limit``, and what is written between two calls. Blocks.
    """
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        size = os.fstat(fd).st_size
        if size <= limit:
            return False
        os.lseek(fd, size - limit, os.SEEK_SET)
        cut_fd = os.open(trimmed(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(cut_fd, "wb") as cut:
            left = limit
            while left and (chunk := os.read(fd, min(_CHUNK, left))):
                cut.write(chunk)
                left -= len(chunk)
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)
    return True


async def keep_trimmed(path: Path, *, limit: int, period: float = 10.0) -> None:
    """Trim the log to ``limit`` bytes every ``period`` seconds until cancelled."""
    while True:
        await _trims.run(trim, path, limit)
        await trio.sleep(period)


async def tail(path: Path, *, lines: int | None = None, follow: bool = False) -> AsyncGenerator[bytes, None]:
    """Yield the last ``lines`` lines (None: all that are kept) in pieces of at most 64 KiB, cut anywhere; with
    ``follow``, then what is appended, until closed (use ``aclosing``).

    Continues in the new file when the log is rotated or trimmed. A missing log counts as empty. At most the last 8 MiB
    are searched for lines.
    """
    older, wanted = trimmed(path), lines
    source = _LogReader(path)
    try:
        if wanted is not None:
            wanted -= source.skip_to_last(wanted)
        if wanted is None or wanted > 0:
            before = _LogReader(older)
            try:
                if wanted is not None:
                    before.skip_to_last(wanted)
                while piece := before.read():
                    yield piece
            finally:
                before.close()
        while True:
            while piece := source.read():
                yield piece
            if not follow:
                return
            if not source.renewed():
                await trio.sleep(_LOOK_AGAIN)
    finally:
        source.close()


@attrs.define(eq=False)
class _LogReader:
    """A position in a log file that may be missing, trimmed or replaced at any time."""

    _path: Path
    _fd: int | None = None

    def __attrs_post_init__(self) -> None:
        self._open()

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def read(self) -> bytes:
        return b"" if self._fd is None else os.read(self._fd, _CHUNK)

    def renewed(self) -> bool:
        """Whether reading starts again at the beginning of a file: it was trimmed, replaced, or has appeared."""
        if self._fd is None:
            self._open()
            return self._fd is not None
        here = os.fstat(self._fd)
        if here.st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            os.lseek(self._fd, 0, os.SEEK_SET)
            return True
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False  # between two runs; what is still written to the old one is shown
        # The old file may have grown since it was read to its end: then it is read first.
        if os.path.samestat(here, there) or here.st_size > os.lseek(self._fd, 0, os.SEEK_CUR):
            return False
        self.close()
        self._open()
        return True

    def skip_to_last(self, lines: int) -> int:
        """Seek to the beginning of the last ``lines`` lines; return how many lines follow, at most ``lines``."""
        if self._fd is None:
            return 0
        end = start = os.fstat(self._fd).st_size
        found, place = 0, end
        unfinished = end > 0 and os.pread(self._fd, 1, end - 1) != b"\n"
        breaks_wanted = lines if unfinished else lines + 1
        while start > max(0, end - _BACKLOG) and lines > 0:
            begin = max(0, start - _CHUNK)
            block = os.pread(self._fd, start - begin, begin)
            at = len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                found += 1
                if found == breaks_wanted:
                    os.lseek(self._fd, begin + at + 1, os.SEEK_SET)
                    return lines
            start = place = begin
        os.lseek(self._fd, place, os.SEEK_SET)
        return found + 1 if unfinished else found

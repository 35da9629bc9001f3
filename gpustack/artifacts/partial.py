"""A file that is still arriving: ``<name>.part`` with holes, and beside it which bytes are there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import attrs

from gpustack import durable_file
from gpustack.artifacts.fault import NoSpace
from gpustack.artifacts.listing import RemoteFile
from gpustack.artifacts.range import ByteRanges

_SIDECAR_LIMIT = 8 << 20


@attrs.define(eq=False, repr=False)
class PartialFile:
    """Keeps the bytes that have come so far over a kill of any kind, and never claims bytes that did not.

    All methods but the properties block; one thread at a time may ``save``, any number may ``write`` different bytes.
    """

    file: RemoteFile
    target: Path
    done: ByteRanges
    etag: str | None
    _fd: int

    @classmethod
    def open(cls, file: RemoteFile, target: Path) -> PartialFile:
        """Go on with what an earlier try left, if it was the same file; raises NoSpace, OSError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(target)
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        partial = cls(file, target, ByteRanges(), None, fd)
        try:
            partial._recall()
        except BaseException:
            os.close(fd)
            raise
        return partial

    def write(self, at: int, block: bytes) -> None:
        """Put bytes where they belong; they count only once ``done`` says so. Raises NoSpace, OSError."""
        view = memoryview(block)
        try:
            while view:
                written = os.pwrite(self._fd, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise _disk(error, self.target) from error

    def save(self) -> None:
        """Write down what is done. The process may be killed at any moment: the note is replaced, not altered."""
        note = {"identity": self.file.identity, "etag": self.etag, "done": self.done.parts}
        try:  # not synced: the bytes that it tells of are not either
            durable_file.write(
                _sidecar_of(self.target),
                json.dumps(note),
                mode=0o644,
                draft=_draft_of(self.target),
                sync=False,
            )
        except OSError as error:
            raise _disk(error, self.target) from error

    def restart(self) -> None:
        """Forget all bytes: the source has others now."""
        self.done, self.etag = ByteRanges(), None
        _sidecar_of(self.target).unlink(missing_ok=True)

    def finish(self) -> None:
        """Make the file whole under its name, on disk for good."""
        durable_file.put_in_place(part_of(self.target), self.target)
        _sidecar_of(self.target).unlink(missing_ok=True)

    def close(self) -> None:
        """Keep everything for the next try."""
        os.close(self._fd)

    def _recall(self) -> None:
        note = _note(self.target)
        size = os.fstat(self._fd).st_size
        if note is not None and size == self.file.size and note.get("identity") == self.file.identity:
            with contextlib.suppress(TypeError, ValueError):
                done = ByteRanges.of((int(start), int(end)) for start, end in note["done"])
                if not done.parts or done.parts[-1][1] <= self.file.size:
                    self.done = done
                    self.etag = note["etag"] if isinstance(note.get("etag"), str) else None
                    return
        self.restart()
        try:
            os.ftruncate(self._fd, 0)  # so that nothing of another file can shine through
            os.ftruncate(self._fd, self.file.size)
        except OSError as error:
            raise _disk(error, self.target) from error

    def __repr__(self) -> str:
        return f"<Partial {self.target.name}: {self.done.size} of {self.file.size} bytes>"


def part_of(target: Path) -> Path:
    """Where the bytes of ``target`` gather."""
    return target.with_name(target.name + ".part")


def kept_bytes(file: RemoteFile, target: Path) -> int:
    """How many bytes of an unfinished ``target`` are on disk and would not be fetched again."""
    note = _note(target)
    if note is None or note.get("identity") != file.identity:
        return 0
    with contextlib.suppress(TypeError, ValueError, KeyError):
        return min(ByteRanges.of((int(start), int(end)) for start, end in note["done"]).size, file.size)
    return 0


def discard(target: Path) -> None:
    """Remove what is unfinished of ``target``."""
    for path in (part_of(target), _sidecar_of(target), _draft_of(target)):
        path.unlink(missing_ok=True)


@attrs.define(eq=False)
class FileDigest:
    """The hash of a file, taken in steps so that it can be stopped between them."""

    path: Path
    file: RemoteFile
    step: int = 32 << 20
    place: int = 0
    _hash: hashlib._Hash = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        if self.file.sha256 is not None:
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(b"blob %d\0" % self.file.size, usedforsecurity=False)

    @property
    def is_told(self) -> bool:
        """The source told a hash at all."""
        return self.file.sha256 is not None or self.file.git_sha1 is not None

    def advance(self) -> bool:
        """Read the next step; false at the end of the file. Raises OSError."""
        with self.path.open("rb") as source:
            source.seek(self.place)
            end = self.place + self.step
            while self.place < end:
                block = source.read(min(1 << 20, end - self.place))
                if not block:
                    return False
                self._hash.update(block)
                self.place += len(block)
        return True

    @property
    def is_right(self) -> bool:
        """What was read is what the source announced, in size and hash."""
        wanted = self.file.sha256 or self.file.git_sha1
        return self.place == self.file.size and (wanted is None or self._hash.hexdigest() == wanted.lower())


def _sidecar_of(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def _draft_of(target: Path) -> Path:
    """Where the next note is written."""
    return _sidecar_of(target).with_suffix(".new")


def _note(target: Path) -> dict[str, Any] | None:
    try:
        with _sidecar_of(target).open("rb") as source:
            note = json.loads(source.read(_SIDECAR_LIMIT))
    except (OSError, ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) else None


def _disk(error: OSError, target: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"The disk of {target.parent} is full: free some space, or choose another --cache-dir")
    return error

"""A file that is being fetched: the sparse file ``<name>.part``, and ``<name>.part.json``, which bytes are valid."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from gpustack import durable_file
from gpustack.artifacts.disk import NoSpace, is_full
from gpustack.artifacts.listing import RemoteFile

_SIDECAR_LIMIT = 8 << 20


Range = tuple[int, int]
"""The offset of the first byte, and that after the last one."""


@attrs.frozen
class ByteRanges:
    """A set of byte offsets, as sorted ranges that neither touch nor overlap."""

    parts: tuple[Range, ...] = ()

    @classmethod
    def of(cls, parts: Iterable[Range]) -> ByteRanges:
        """The union of ranges, which may overlap or be empty; raises ValueError for a negative or reversed one."""
        merged: list[Range] = []
        for start, end in sorted(parts):
            if start < 0 or end < start:
                raise ValueError(f"no range: {start} to {end}")
            if start == end:
                continue
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return cls(tuple(merged))

    def plus(self, start: int, end: int) -> ByteRanges:
        """This set with the bytes from ``start`` up to ``end`` added."""
        return ByteRanges.of((*self.parts, (start, end)))

    @property
    def size(self) -> int:
        """The number of bytes."""
        return sum(end - start for start, end in self.parts)

    def reach(self, at: int) -> int:
        """The end of the range that contains the offset ``at``; ``at`` itself if none does."""
        return next((end for start, end in self.parts if start <= at < end), at)

    def missing(self, size: int) -> tuple[Range, ...]:
        """The ranges of a file of ``size`` bytes that are not in this set."""
        gaps, at = [], 0
        for start, end in self.parts:
            if start >= size:
                break
            if at < start:
                gaps.append((at, start))
            at = max(at, end)
        if at < size:
            gaps.append((at, size))
        return tuple(gaps)


@attrs.define(eq=False, repr=False)
class PartialFile:
    """The bytes of a file so far; they survive a kill, and only bytes that were written count as done.

    All methods block. One thread at a time may ``save``; any number may ``write`` different bytes.
    """

    file: RemoteFile
    target: Path
    done: ByteRanges
    etag: str | None
    _fd: int

    @classmethod
    def open(cls, file: RemoteFile, target: Path) -> PartialFile:
        """Open what an earlier call left of the same file, or begin a new one. Raises NoSpace, OSError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(target)
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        partial = cls(file, target, ByteRanges(), None, fd)
        try:
            partial._load()
        except BaseException:
            os.close(fd)
            raise
        return partial

    def write(self, at: int, block: bytes) -> None:
        """Write ``block`` at the offset ``at``; the caller adds it to ``done``. Raises NoSpace, OSError."""
        view = memoryview(block)
        try:
            while view:
                written = os.pwrite(self._fd, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise _disk_error(error, self.target) from error

    def save(self) -> None:
        """Save which bytes are done, by a rename, so that a kill at any moment leaves a valid note."""
        note = {"identity": self.file.identity, "etag": self.etag, "done": self.done.parts}
        draft = self.target.with_name(self.target.name + ".part.new")
        try:  # not synced: nor are the bytes that it describes
            durable_file.write(
                _sidecar_of(self.target), json.dumps(note), mode=0o644, draft=draft, sync=False
            )
        except OSError as error:
            raise _disk_error(error, self.target) from error

    def flush(self) -> None:
        """Wait until the bytes written so far are on the disk. May be abandoned. Raises OSError."""
        own = os.dup(self._fd)  # it may be closed meanwhile
        try:
            os.fdatasync(own)
        finally:
            os.close(own)

    def restart(self) -> None:
        """Forget all bytes, because the source has changed."""
        self.done, self.etag = ByteRanges(), None
        _sidecar_of(self.target).unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the complete file its name, synced to the disk. Raises OSError."""
        durable_file.put_in_place(part_of(self.target), self.target)
        _sidecar_of(self.target).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; what was saved stays for the next call."""
        os.close(self._fd)

    def _load(self) -> None:
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
            os.ftruncate(self._fd, 0)  # so that no bytes of another file remain
            os.ftruncate(self._fd, self.file.size)
        except OSError as error:
            raise _disk_error(error, self.target) from error

    def __repr__(self) -> str:
        return f"<PartialFile {self.target.name}: {self.done.size} of {self.file.size} bytes>"


def part_of(target: Path) -> Path:
    """The file that holds the bytes of ``target`` until it is complete."""
    return target.with_name(target.name + ".part")


def kept_bytes(file: RemoteFile, target: Path) -> int:
    """The number of bytes of an unfinished ``target`` that need not be fetched again."""
    note = _note(target)
    if note is None or note.get("identity") != file.identity:
        return 0
    with contextlib.suppress(TypeError, ValueError, KeyError):
        return min(ByteRanges.of((int(start), int(end)) for start, end in note["done"]).size, file.size)
    return 0


def unfinished_of(target: Path) -> list[Path]:
    """Every file that may lie beside ``target`` while it is fetched."""
    return [target.with_name(target.name + suffix) for suffix in (".part", ".part.json", ".part.new", ".xet")]


def discard(target: Path) -> None:
    """Remove what is unfinished of ``target``."""
    for path in unfinished_of(target):
        path.unlink(missing_ok=True)


@attrs.define(eq=False)
class FileDigest:
    """The hash of a file, computed in steps of ``step`` bytes so that it can be stopped between them. Blocking."""

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
    def has_hash(self) -> bool:
        """Whether the source announced a hash."""
        return self.file.sha256 is not None or self.file.git_sha1 is not None

    def advance(self, until: int | None = None) -> bool:
        """Read the next step, up to the offset ``until`` if given; returns False at the end of the file.

        Raises OSError.
        """
        with self.path.open("rb") as source:
            source.seek(self.place)
            end = self.place + self.step if until is None else min(self.place + self.step, until)
            while self.place < end:
                block = source.read(min(1 << 20, end - self.place))
                if not block:
                    return False
                self._hash.update(block)
                self.place += len(block)
        return True

    @property
    def matches(self) -> bool:
        """Whether size and hash of what was read are those that the source announced."""
        wanted = self.file.sha256 or self.file.git_sha1
        return self.place == self.file.size and (wanted is None or self._hash.hexdigest() == wanted.lower())


def _sidecar_of(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def _note(target: Path) -> dict[str, Any] | None:
    try:
        with _sidecar_of(target).open("rb") as source:
            note = json.loads(source.read(_SIDECAR_LIMIT))
    except (OSError, ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) else None


def _disk_error(error: OSError, target: Path) -> Exception:
    if is_full(error):
        return NoSpace(f"The disk of {target.parent} is full: free some space, or choose another --cache-dir")
    return error

"""Packs and unpacks archives of programs: no member lands outside the folder, and size and count are bounded."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, cast

import attrs

from gpustack import durable_file
from gpustack.artifacts.disk import CorruptFile
from gpustack.domain.unit import GIB, human_bytes

_BLOCK = 256 << 10
_LONGEST_READ = 1 << 20
"""The most bytes that may be read at once: only a header that claims a huge size would read more."""


@attrs.frozen(kw_only=True)
class ArchiveLimits:
    """The most that an archive may unpack to: bytes in all, and members."""

    size: int = 8 * GIB
    members: int = 20_000


def unpack(
    archive: Path,
    folder: Path,
    *,
    limits: ArchiveLimits = ArchiveLimits(),
    go_on: Callable[[], None] = lambda: None,
) -> None:
    """Unpack a ``.tar.gz`` into ``folder``, which is created if need be. No existing file is overwritten.

    Only plain files, folders, and symbolic links to targets inside are accepted. Files get mode 0755 or 0644. Blocking;
    ``go_on`` is called between blocks and may raise to stop. Raises CorruptFile, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open("rb") as raw, gzip.GzipFile(fileobj=raw) as stream:
            bounded = _BoundedStream(cast("IO[bytes]", stream), limits.size)
            # "r:" and not "r|gz": so all reading, also of headers, goes through our bounds.
            with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r:") as tar:
                _unpack(tar, folder, limits, go_on)
            while bounded.read(_BLOCK):  # the checksum of gzip stands at the end
                go_on()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise CorruptFile(f"{archive.name} cannot be unpacked: {error or 'it ends early'}") from error


def pack(folder: Path, archive: Path, *, top: str) -> None:
    """Write ``folder`` as a ``.tar.gz`` in which everything lies below ``top``; the archive appears by a rename.

    Equal content gives equal bytes. Blocking; raises OSError.
    """
    with (
        durable_file.replacing(archive, mode=0o666) as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, f"{top}/{path.relative_to(folder)}", recursive=False, filter=_without_owner)


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _unpack(tar: tarfile.TarFile, folder: Path, limits: ArchiveLimits, go_on: Callable[[], None]) -> None:
    links: list[tuple[PurePosixPath, str]] = []
    for count, member in enumerate(tar):
        if count >= limits.members:
            raise ValueError(f"it has more than {limits.members} members")
        go_on()
        name = _inside(member.name)
        if member.isdir():
            (folder / name).mkdir(parents=True, exist_ok=True)
        elif member.issym():
            links.append((name, _inside_target(name, member.linkname)))
        elif member.isreg():
            _write(tar, member, folder / name, go_on)
        else:
            raise ValueError(f"{member.name[:120]!r} is neither a file, a folder nor a symbolic link")
    # Links come last, so that nothing is ever written through one.
    for name, target in links:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _refuse_existing(folder / name)
        (folder / name).symlink_to(target)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, go_on: Callable[[], None]) -> None:
    source = tar.extractfile(member)
    assert source is not None  # it is a regular file
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_existing(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with source, os.fdopen(os.open(path, flags, 0o600), "wb") as target:
        while block := source.read(_BLOCK):
            target.write(block)
            go_on()
        os.fchmod(target.fileno(), 0o755 if member.mode & 0o100 else 0o644)


def _refuse_existing(path: Path) -> None:
    if path.is_symlink() or path.exists():
        raise ValueError(f"{path.name[:120]!r} is in it twice, or there already")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or len(name) > 1024:
        raise ValueError(f"{name[:120]!r} would lie outside the folder")
    return path


def _inside_target(name: PurePosixPath, target: str) -> str:
    """The target of a link, if it stays inside. ``..`` is accepted only at the beginning of the target.

    Further on, ``..`` could climb out of the folder that another link leads to.
    """
    parts = PurePosixPath(target).parts
    ups = next((place for place, part in enumerate(parts) if part != ".."), len(parts))
    climbs = PurePosixPath(target).is_absolute() or ".." in parts[ups:] or ups > len(name.parts) - 1
    if climbs or not parts or "\0" in target or len(target) > 1024:
        raise ValueError(f"the link {str(name)[:120]!r} would lead outside the folder")
    return target


@attrs.define(eq=False)
class _BoundedStream:
    """A stream that refuses large reads, and ends with an error after ``_most`` bytes."""

    _stream: IO[bytes]
    _most: int

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise ValueError("a header in it is larger than any header")
        return self._bound(self._stream.read(size))

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET and place > self._most:
            raise ValueError(f"it unpacks to more than {human_bytes(self._most)}")
        return self._stream.seek(place, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _bound(self, block: bytes) -> bytes:
        if self._stream.tell() > self._most:
            raise ValueError(f"it unpacks to more than {human_bytes(self._most)}")
        return block

"""Models that lie on this machine: a file, the shards of one, or a folder."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import attrs

from gpustack.artifacts.listing import (
    MOST_FILES,
    Listing,
    RemoteFile,
    choose,
    is_other_model,
    is_projector,
    shard_of,
    shards,
)
from gpustack.artifacts.projector import best_by_headers, by_place_and_name
from gpustack.artifacts.repository import FileExtras, engine_files
from gpustack.artifacts.source import SourceSettings
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import BadRequest, Invalid, NotFound
from gpustack.nursery.limiter import threads
from gpustack.text import is_text

_MOST_PROJECTORS = 32
"""The most projectors whose headers are read."""

_MOST_LINKS = 4
"""How deep linked folders within linked folders are followed."""

_ALL = FileExtras(code=True)

_disk = threads("model paths", 4)


@attrs.frozen
class LocalPath:
    """The path must be absolute and exist on the machine that lists it. Nothing is ever fetched or removed."""

    kind: SourceKind = SourceKind.LOCAL_PATH
    is_local: bool = True

    async def resolve(self, source: ModelSource, settings: SourceSettings) -> Listing:
        """As ``Source``. A disk that does not answer (a lost network share) takes no longer than the deadline."""
        import trio

        with trio.move_on_after(settings.deadline):
            return await _disk.run(find, source.local_path or "", settings.projector, abandon=True)
        raise NotFound(f"The disk of {source.local_path} did not answer within {settings.deadline:g} s")


def find(path: str, projector: str | None) -> Listing:
    """List the model at ``path``. Blocking; raises Invalid, NotFound, BadRequest."""
    if not path or "\0" in path:
        raise Invalid("local_path must name a file or folder")
    place = Path(path)
    if not place.is_absolute():
        raise Invalid(f"local_path must be an absolute path on the worker, not {path!r}")
    try:
        if place.is_dir():
            return _folder(place, projector)
        if place.is_file():
            return _file(place, projector)
        if place.exists():
            raise Invalid(f"local_path {path} is neither a file nor a folder")
        if place.is_symlink():
            raise NotFound(f"local_path {path} is a link that leads nowhere: to {place.readlink()}")
        first = _first_shard(place)
        if first is not None:
            raise NotFound(f"The file {path} does not exist; the model's first part is {first}")
    except OSError as error:
        raise NotFound(f"local_path {path} cannot be read: {error.strerror}") from error
    raise NotFound(f"local_path {path} does not exist on this worker")


def _file(place: Path, projector: str | None) -> Listing:
    names = _names_beside(place)
    parts = shards(place.name, names)
    companion = None
    if projector is not None and place.suffix.lower() == ".gguf" and not is_projector(place.name):
        companion = _companion(place.parent, names, parts[0], projector)
    return _listing(place.parent, parts, parts[0], companion)


def _folder(place: Path, projector: str | None) -> Listing:
    names = _names_below(place)
    if not names:
        raise NotFound(f"The folder {place} has no files")
    # Many GGUF files have a config.json beside them; it describes the model only if there are other weights.
    other = "config.json" in names and any(is_other_model(name) for name in names)
    if other or not any(name.lower().endswith(".gguf") for name in names):
        # A path is used as it is, so code and pickles in it are no fault; but each weight is counted once.
        return _listing(place, tuple(engine_files(names, _ALL) or names), None, None)
    try:
        parts = choose(names, None, place=str(place))
    except BadRequest as error:
        raise Invalid(str(error)) from error
    companion = None if projector is None else _companion(place, names, parts[0], projector)
    return _listing(place, parts, parts[0], companion)


def _companion(folder: Path, names: list[str], main: str, pattern: str) -> str | None:
    """The projector that belongs to the model ``main``, by names and headers."""
    candidates = by_place_and_name(names, main, pattern)[:_MOST_PROJECTORS]
    if not candidates or is_projector(main):
        return None
    best = best_by_headers(folder / main, [folder / name for name in candidates])
    return None if best is None else best.relative_to(folder).as_posix()


def _listing(folder: Path, names: tuple[str, ...], main: str | None, mmproj: str | None) -> Listing:
    every = names if mmproj is None or mmproj in names else (*names, mmproj)
    odd = next((name for name in every if not is_text(name)), None)
    if odd is not None and main is not None:
        raise Invalid(f"The file {odd} in {folder} has a name that is no UTF-8 text: rename it")
    every = tuple(name for name in every if is_text(name))
    files = tuple(RemoteFile(name=name, size=(folder / name).stat().st_size) for name in every)
    return Listing(folder=str(folder), files=files, main=main, mmproj=mmproj)


def _names_beside(place: Path) -> list[str]:
    with os.scandir(place.parent) as entries:
        return [entry.name for entry, _ in zip(entries, range(MOST_FILES), strict=False) if _is_file(entry)]


def _names_below(place: Path) -> list[str]:
    """The files in the folder and below it, sorted, at most ``MOST_FILES``; hidden ones are left out.

    Linked folders are followed up to ``_MOST_LINKS`` links deep, each folder once. They are listed last, and left out
    where they would exceed the limit. Raises Invalid if the folder itself exceeds it.
    """
    found: list[str] = []
    seen = {_identity(place)}
    seen.update(_identity(above) for above in place.resolve().parents)
    waiting, folders = [(place, 0)], 0
    while waiting:
        waiting.sort(key=lambda one: -one[1])  # folders without links on the way first
        folder, links = waiting.pop()
        before, folders = len(found), folders + 1
        for entry in _entries(folder):
            if (identity := _folder_behind(entry)) is not None:
                followed = links + entry.is_symlink()
                if followed <= _MOST_LINKS and identity not in seen:
                    seen.add(identity)
                    waiting.append((Path(entry.path), followed))
            elif _is_file(entry):
                found.append(Path(entry.path).relative_to(place).as_posix())
        if max(len(found), folders) <= MOST_FILES:
            continue
        if not links:
            raise Invalid(f"The folder {place} has more than {MOST_FILES} files: name the model's own folder")
        del found[before:]
        break
    return sorted(found)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            shown = (entry for entry in entries if not entry.name.startswith("."))
            return sorted(islice(shown, MOST_FILES + 1), key=lambda entry: entry.name)
    except OSError:
        return []


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is, or links to, a file that we may look at."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _folder_behind(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """The identity of the folder that it is or links to; ``None`` if it is none, or we may not look at it."""
    try:
        return _identity(Path(entry.path)) if entry.is_dir() else None
    except OSError:
        return None


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode: equal for one folder under all its names."""
    about = folder.stat()
    return about.st_dev, about.st_ino


def _first_shard(place: Path) -> str | None:
    """The first shard that a user means by the name of the whole model: ``a-00001-of-00003.gguf`` for ``a.gguf``."""
    if not place.parent.is_dir():
        return None
    for name in sorted(_names_beside(place)):
        shard = shard_of(name)
        if shard is not None and shard[:2] == (place.name, 1):
            return name
    return None


SOURCE = LocalPath()

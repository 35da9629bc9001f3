"""The files of a source: which to fetch, which one the engine gets, and the folder in the cache."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import attrs

from gpustack.errors import BadRequest, NotFound
from gpustack.text import printable

MOST_FILES = 10_000
_SHOWN = 100
"""The most characters of a file name in a sentence that lists several."""
_SHARD = re.compile(
    r"^(?P<stem>.*)-(?P<number>\d{5})-(?P<of>of)-(?P<total>\d{5})(?P<suffix>\.[A-Za-z0-9]+)$", re.IGNORECASE
)
_OTHER_MODEL = re.compile(r"\.safetensors$|^(?:pytorch_model|model|consolidated)\b.*\.(?:bin|pth?)$")
_IMATRIX = re.compile(r"^imatrix\b|^imatrix_|[-_.]imatrix\.gguf$")


@attrs.frozen(kw_only=True)
class RemoteFile:
    """A file of a source. ``name`` is its path within the source, ``size`` in bytes, hashes in hexadecimal.

    ``headers`` may hold credentials: they are for the server of ``url`` only.
    """

    name: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None
    """The git blob id, which hubs state in place of a SHA-256 for small files."""
    url: str = attrs.field(default="", repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def identity(self) -> str:
        """A text that is equal for equal content where a hash is known, else for equal URLs."""
        return f"{self.size}:{self.sha256 or self.git_sha1 or self.url}"


@attrs.frozen(kw_only=True)
class Listing:
    """All files of a source that are needed. ``folder`` is where they lie, relative to the root of the cache.

    ``main`` is the file that the engine gets (the first shard of a split model); ``None`` means the folder. ``mmproj``
    is the projector, ``revision`` the state of the source.
    """

    folder: str
    files: tuple[RemoteFile, ...]
    main: str | None = None
    mmproj: str | None = None
    revision: str | None = None

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def file(self, name: str) -> RemoteFile:
        return next(file for file in self.files if file.name == name)


def safe_name(name: str) -> str:
    """``name``, if it is valid on every file system and stays within its folder; raises BadRequest."""
    parts = name.split("/")
    odd = any(character < " " or character in "\\\x7f" for character in name)
    if odd or len(name) > 1024 or any(part in ("", ".", "..") or len(part.encode()) > 240 for part in parts):
        raise BadRequest(f"The file name {name[:120]!r} of the source is not allowed here")
    return name


def folder_of(hub: str, repo: str, revision: str | None, usual: str) -> str:
    """The folder of a repository in the cache: one for each revision, so that no two share files.

    ``usual`` is the revision that is meant where none is named. ``@`` cannot be part of the name of a repository.
    """
    place = f"{hub}/{repo}"
    if revision is None or revision == usual:
        return place
    return f"{place}@{re.sub(r'[^A-Za-z0-9._-]', '--', revision)}"


def is_projector(name: str) -> bool:
    """Whether it is a vision or audio projector, which belongs to a model and is none itself."""
    return "mmproj" in PurePosixPath(name).name.lower()


def is_companion(name: str) -> bool:
    """Whether it is a GGUF file but no model: a projector, or an importance matrix of a quantisation."""
    return is_projector(name) or _IMATRIX.search(PurePosixPath(name).name.lower()) is not None


def is_other_model(name: str) -> bool:
    """Whether it holds weights in another format than GGUF. ``imatrix.bin`` and the like do not count."""
    return _OTHER_MODEL.search(PurePosixPath(name).name.lower()) is not None


def shard_of(name: str) -> tuple[str, int, int] | None:
    """``a-00002-of-00003.gguf`` → (``a.gguf``, 2, 3); ``None`` for a file that is whole."""
    found = _SHARD.match(name)
    if found is None:
        return None
    return found["stem"] + found["suffix"], int(found["number"]), int(found["total"])


def model_of(name: str) -> str:
    """The name of the model that a file is a shard of, or ``name`` itself."""
    shard = shard_of(name)
    return name if shard is None else shard[0]


def shards(first: str, names: Iterable[str]) -> tuple[str, ...]:
    """All shards of the model that ``first`` belongs to, in order. Raises NotFound if some are not in ``names``."""
    shard = shard_of(first)
    if shard is None:
        return (first,)
    _, _, total = shard
    found = _SHARD.match(first)
    assert found is not None
    wanted = [
        f"{found['stem']}-{number:05d}-{found['of']}-{total:05d}{found['suffix']}"
        for number in range(1, total + 1)
    ]
    present = set(names)
    missing = [PurePosixPath(name).name for name in wanted if name not in present]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise NotFound(
            f"Of {model_of(first)}, which has {total} parts, {', '.join(missing[:3])}{more} is missing"
        )
    return tuple(wanted)


def choose(names: Sequence[str], pattern: str | None, *, place: str) -> tuple[str, ...]:
    """The shards, in order, of the one GGUF model among ``names`` that matches ``pattern`` (any, if it is ``None``).

    Raises NotFound when nothing matches, and BadRequest when several models match; both list what there is.
    """
    usable = sorted(name for name in names if name.lower().endswith(".gguf"))
    models = [name for name in usable if not is_companion(name)]
    matching = [name for name in models if pattern is None or matches(name, pattern)]
    if not matching and pattern is not None:
        matching = [name for name in models if matches(name.lower(), pattern.lower())]
    if not matching and pattern is not None:
        matching = [name for name in usable if matches(name, pattern)]  # a projector asked for by name
    if not matching:
        raise NotFound(_no_match(pattern, models or sorted(names), place))
    different = sorted({model_of(name) for name in matching})
    if len(different) > 1:
        number = f"{len(different)} different models"
        what = f"{pattern!r} matches {number} in {place}" if pattern is not None else f"{place} has {number}"
        raise BadRequest(f"{what}: {_some_of(different)}; name the file of one of them")
    return shards(matching[0], names)


def matches(name: str, pattern: str) -> bool:
    """Whether ``pattern``, a name or a glob, matches the path or its last part; case-sensitive."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(PurePosixPath(name).name, pattern)


def _no_match(pattern: str | None, names: Sequence[str], place: str) -> str:
    if pattern is not None:
        what = f"No file matches {pattern!r} in {place}"
    elif any(name.lower().endswith(".gguf") for name in names):
        what = f"There is no GGUF file of a model in {place}, only what belongs to one"
    else:
        what = f"There is no GGUF file in {place}"
    there = sorted({model_of(name) for name in names})
    return f"{what}; there are {_some_of(there)}" if there else f"{what}, which is empty"


def _some_of(names: Sequence[str]) -> str:
    listed = ", ".join(printable(name, _SHOWN) for name in names[:10])
    return f"{listed} and {len(names) - 10} more" if len(names) > 10 else listed

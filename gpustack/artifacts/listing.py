"""What a source has: the files to fetch, which of them the engine is given, and where they are to lie."""

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
"""Characters of the name of a file in a sentence that lists several."""
_SHARD = re.compile(
    r"^(?P<stem>.*)-(?P<number>\d{5})-(?P<of>of)-(?P<total>\d{5})(?P<suffix>\.[A-Za-z0-9]+)$", re.IGNORECASE
)
_OTHER_MODEL = re.compile(r"\.safetensors$|^(?:pytorch_model|model|consolidated)\b.*\.(?:bin|pth?)$")
_IMATRIX = re.compile(r"^imatrix\b|^imatrix_|[-_.]imatrix\.gguf$")


@attrs.frozen(kw_only=True)
class RemoteFile:
    """A file of a source. ``name`` is its path within the source; hashes are in hexadecimal, where told.

    ``headers`` (credentials) belong to the host of ``url`` and to no other.
    """

    name: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None
    """The name git gives the content: how hubs tell the hash of small files."""
    url: str = attrs.field(default="", repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def identity(self) -> str:
        """Equal for equal content, as far as is known; else for the same address."""
        return f"{self.size}:{self.sha256 or self.git_sha1 or self.url}"


@attrs.frozen(kw_only=True)
class Listing:
    """All files of a source that are needed. ``folder`` is where they lie, relative to the cache's root.

    The engine is given ``main`` (the first shard of a split model), or the folder if there is no single main file.
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
    """``name`` if it stays within its folder on any file system; raises BadRequest with a sentence."""
    parts = name.split("/")
    odd = any(character < " " or character in "\\\x7f" for character in name)
    if odd or len(name) > 1024 or any(part in ("", ".", "..") or len(part.encode()) > 240 for part in parts):
        raise BadRequest(f"The file name {name[:120]!r} of the source is not allowed here")
    return name


def is_projector(name: str) -> bool:
    """A vision or audio projector: it accompanies a model and is none itself."""
    return "mmproj" in PurePosixPath(name).name.lower()


def is_companion(name: str) -> bool:
    """A GGUF file that is no model: a projector, or the measurements that a quantisation was made with."""
    return is_projector(name) or _IMATRIX.search(PurePosixPath(name).name.lower()) is not None


def is_other_model(name: str) -> bool:
    """Weights of a model in another format than GGUF; not what a tool leaves beside one (``imatrix.bin``)."""
    return _OTHER_MODEL.search(PurePosixPath(name).name.lower()) is not None


def shard_of(name: str) -> tuple[str, int, int] | None:
    """``a-00002-of-00003.gguf`` → (``a.gguf``, 2, 3); ``None`` for a file that is whole."""
    found = _SHARD.match(name)
    if found is None:
        return None
    return found["stem"] + found["suffix"], int(found["number"]), int(found["total"])


def model_of(name: str) -> str:
    """The name of the model that a file is a shard of, or the name itself."""
    shard = shard_of(name)
    return name if shard is None else shard[0]


def shards(first: str, names: Iterable[str]) -> tuple[str, ...]:
    """All shards of the model that ``first`` belongs to, in order; raises NotFound naming those not in ``names``."""
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
    """The files of the one GGUF model that ``pattern`` names among ``names``: its shards, the first one first.

    Raises NotFound when nothing matches, saying what there is, and BadRequest when several different models match.
    """
    usable = sorted(name for name in names if name.lower().endswith(".gguf"))
    models = [name for name in usable if not is_companion(name)]
    matching = [name for name in models if pattern is None or matches(name, pattern)]
    if not matching and pattern is not None:
        matching = [name for name in models if matches(name.lower(), pattern.lower())]
    if not matching and pattern is not None:
        matching = [name for name in usable if matches(name, pattern)]  # a projector asked for by name
    if not matching:
        raise NotFound(_nothing(pattern, models or sorted(names), place))
    different = sorted({model_of(name) for name in matching})
    if len(different) > 1:
        number = f"{len(different)} different models"
        what = f"{pattern!r} matches {number} in {place}" if pattern is not None else f"{place} has {number}"
        raise BadRequest(f"{what}: {_some(different)}; name the file of one of them")
    return shards(matching[0], names)


def matches(name: str, pattern: str) -> bool:
    """``pattern`` is a file name or a glob, of the path or of its last part; case counts."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(PurePosixPath(name).name, pattern)


def _nothing(pattern: str | None, names: Sequence[str], place: str) -> str:
    if pattern is not None:
        what = f"No file matches {pattern!r} in {place}"
    elif any(name.lower().endswith(".gguf") for name in names):
        what = f"There is no GGUF file of a model in {place}, only what belongs to one"
    else:
        what = f"There is no GGUF file in {place}"
    there = sorted({model_of(name) for name in names})
    return f"{what}; there are {_some(there)}" if there else f"{what}, which is empty"


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(printable(name, _SHOWN) for name in names[:10])
    return f"{listed} and {len(names) - 10} more" if len(names) > 10 else listed

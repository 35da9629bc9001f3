"""Which vision or audio projector belongs to a model: by where the files lie, their names, and their headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from gpustack.artifacts.headers.gguf import GgufHeader, HeaderError, read_header
from gpustack.artifacts.listing import is_projector, matches, model_of
from gpustack.domain.facts import gguf_category, gguf_pooling
from gpustack.domain.model import Category

_ORDER = ("f16", "bf16", "q8_0", "f32")
"""Preferred precision, the best first: half precision loses nothing visible, f32 only takes more space."""
_KIND = re.compile(
    r"^(?:ud|i\d|i?q\d\w*|b?f16|f32|fp\d+|mxfp4\w*|tq\d\w*|k|[sml]|xs|xxs|nl|imat(?:rix)?|gguf|ggml|\d{5}|of)$"
)
"""Words of a file name that describe the format of the weights, not the model."""
_OWN = re.compile(r"mmproj|projector|vision|audio|encoder|model|clip|vit")
_WIDTHS = ("clip.vision.projection_dim", "clip.audio.projection_dim", "clip.projection_dim")
_LAST_LAYERS = re.compile(r"(?:[av]\.)?mm\.|.*projector")
_NAMES = ("general.basename", "general.name", "general.base_model.0.name")


def by_place_and_name(names: Iterable[str], main: str, pattern: str) -> list[str]:
    """The projectors among ``names`` that match ``pattern`` and may belong to the model ``main``, the likeliest first.

    Left out are those that lie in a folder with other models, or have the name of another model in their folder.
    """
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    models = {model_of(name) for name in ggufs if not is_projector(name)} - {model_of(main)}
    candidates = [name for name in ggufs if matches(name, pattern) and model_of(name) != model_of(main)]
    found = [name for name in candidates if not _belongs_to_another(name, main, models)]
    return sorted(
        found, key=lambda name: (_distance(name, main), -_name_match(name, main), _precision(name), name)
    )


def _belongs_to_another(name: str, main: str, models: set[str]) -> bool:
    folder = PurePosixPath(name).parent
    own = {one for one in models if PurePosixPath(one).parent == folder}
    if folder not in PurePosixPath(main).parents:
        return bool(own)  # beside or below the model's own folder
    likeness = _name_match(name, main)
    return any(_name_match(name, other) > likeness for other in models)


def _distance(name: str, main: str) -> int:
    """0 in the folder of the model, more for each folder above it, most elsewhere."""
    above = [*PurePosixPath(main).parents]
    folder = PurePosixPath(name).parent
    return above.index(folder) if folder in above else len(above)


def _name_match(projector: str, model: str) -> int:
    """How many letters of the names agree, without words for formats; 0 where one has no others, -1 if they differ."""
    ours, theirs = _bare_name(projector), _bare_name(model)
    if not ours or not theirs:
        return 0
    if ours == theirs:
        return 2 * len(ours)
    return min(len(ours), len(theirs)) if ours.startswith(theirs) or theirs.startswith(ours) else -1


def _bare_name(name: str) -> str:
    words = re.split(r"[^a-z0-9_]+|_(?=mmproj)|(?<=mmproj)_", PurePosixPath(model_of(name)).stem.lower())
    return "".join(word for word in words if word and not _KIND.match(word) and not _OWN.fullmatch(word))


def _precision(name: str) -> int:
    words = re.split(r"[^a-z0-9_]+", PurePosixPath(name).name.lower())
    return next((place for place, kind in enumerate(_ORDER) if kind in words), len(_ORDER))


def best_by_headers(model: Path, candidates: Sequence[Path]) -> Path | None:
    """The first of ``candidates`` whose header fits the model; those whose header names the model come first. Blocking.

    A candidate that cannot be read is left out. For a model that cannot be read the first candidate is returned.
    """
    header = _cached_header(model)
    if header is None:
        return next(iter(candidates), None)
    read = [(path, found) for path in candidates if (found := _cached_header(path)) is not None]
    fitting = [(path, found) for path, found in read if unfit(header, found) is None]
    named = [path for path, found in fitting if shares_a_name(header, found)]
    return next(iter([*named, *(path for path, _ in fitting)]), None)


def misfit(model: Path, projector: Path) -> str | None:
    """Why a projector does not fit the model, as a clause; ``None`` if nothing is known against it. Blocking."""
    ours, theirs = _cached_header(model), _cached_header(projector)
    if ours is None:
        return None
    return "its header cannot be read" if theirs is None else unfit(ours, theirs)


def unfit(model: GgufHeader, projector: GgufHeader) -> str | None:
    """Why the headers do not fit: the model takes no pictures, the file is no projector, or vector lengths differ."""
    architecture = _text(model, "general.architecture")
    pooling = model.metadata.get(f"{architecture}.pooling_type")
    pooled = gguf_pooling(pooling if isinstance(pooling, int) else None)
    if gguf_category(architecture, pooled) is not Category.LLM:
        return f"a model of {architecture or 'no known kind'} takes no pictures and no sound"
    kind = _text(projector, "general.architecture")
    if kind not in ("clip", "mmproj"):
        return f"it is no projector ({kind or 'of no known kind'})"
    width, widths = model.metadata.get(f"{architecture}.embedding_length"), _widths(projector)
    if isinstance(width, int) and widths and width not in widths:
        listed = " or ".join(str(one) for one in sorted(widths)[-3:])
        return f"it makes vectors of {listed} numbers, the model takes {width}"
    return None


def shares_a_name(model: GgufHeader, projector: GgufHeader) -> bool:
    """Whether both headers name the same model."""
    ours, theirs = ({_letters(_text(header, key)) for key in _NAMES} - {""} for header in (model, projector))
    return any(one.startswith(other) or other.startswith(one) for one in ours for other in theirs)


def _widths(projector: GgufHeader) -> set[int]:
    """Lengths of the vectors that it may pass to a model: of the tensors of its last layers, or as its metadata says.

    The tensors count too because early converters wrote the length of inner vectors into the metadata.
    """
    last = [tensor.shape for tensor in projector.tensors if _LAST_LAYERS.match(tensor.name)]
    said = (projector.metadata.get(key) for key in _WIDTHS)
    return {side for shape in last for side in shape} | {number for number in said if isinstance(number, int)}


def _cached_header(path: Path) -> GgufHeader | None:
    try:
        about = path.stat()
        return _read_header(path, about.st_size, about.st_mtime_ns)
    except (OSError, HeaderError):
        return None


@lru_cache(maxsize=32)  # a local source is listed often
def _read_header(path: Path, size: int, changed: int) -> GgufHeader:
    return read_header(path)


def _text(header: GgufHeader, key: str) -> str:
    value = header.metadata.get(key)
    return value if isinstance(value, str) else ""


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())

"""Whether a vision or audio projector belongs to a model, by what the headers of both say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from gpustack.artifacts.headers.facts_reader import read_header
from gpustack.artifacts.headers.gguf import GgufHeader, HeaderError
from gpustack.domain.facts import gguf_category, gguf_pooling
from gpustack.domain.model import Category

_WIDTHS = ("clip.vision.projection_dim", "clip.audio.projection_dim", "clip.projection_dim")
_LAST_LAYERS = re.compile(r"(?:[av]\.)?mm\.|.*projector")
_NAMES = ("general.basename", "general.name", "general.base_model.0.name")


def best_by_headers(model: Path, candidates: Sequence[Path]) -> Path | None:
    """The first of ``candidates`` that fits the model, those first that name the same model. Blocking.

    What cannot be read is no projector. Of a model that cannot be read the first candidate is as good as any.
    """
    header = _header(model)
    if header is None:
        return next(iter(candidates), None)
    read = [(path, found) for path in candidates if (found := _header(path)) is not None]
    fitting = [(path, found) for path, found in read if unfit(header, found) is None]
    named = [path for path, found in fitting if shares_a_name(header, found)]
    return next(iter([*named, *(path for path, _ in fitting)]), None)


def misfit(model: Path, projector: Path) -> str | None:
    """Why a projector is not for this model, as a clause; ``None`` where nothing speaks against it. Blocking."""
    ours, theirs = _header(model), _header(projector)
    if ours is None:
        return None
    return "its header cannot be read" if theirs is None else unfit(ours, theirs)


def unfit(model: GgufHeader, projector: GgufHeader) -> str | None:
    """The same of headers: the model takes no pictures, the file is no projector, or the lengths of vectors differ."""
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
    """Whether both headers name the same model, whatever the files are called."""
    ours, theirs = ({_plain(_text(header, key)) for key in _NAMES} - {""} for header in (model, projector))
    return any(one.startswith(other) or other.startswith(one) for one in ours for other in theirs)


def _widths(projector: GgufHeader) -> set[int]:
    """Lengths of vectors that it may give to a model: of its last layers' tensors, or as it says itself.

    The first converters wrote the length of its inner vectors where later ones write that of the model.
    """
    last = [tensor.shape for tensor in projector.tensors if _LAST_LAYERS.match(tensor.name)]
    said = (projector.metadata.get(key) for key in _WIDTHS)
    return {side for shape in last for side in shape} | {number for number in said if isinstance(number, int)}


def _header(path: Path) -> GgufHeader | None:
    try:
        about = path.stat()
        return _read(path, about.st_size, about.st_mtime_ns)
    except (OSError, HeaderError):
        return None


@lru_cache(maxsize=32)  # a local source is looked at again and again
def _read(path: Path, size: int, changed: int) -> GgufHeader:
    return read_header(path)


def _text(header: GgufHeader, key: str) -> str:
    value = header.metadata.get(key)
    return value if isinstance(value, str) else ""


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())

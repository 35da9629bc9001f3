"""Which files of a repository with many are wanted: the shards of one GGUF model, or all that an engine reads.

A repository often holds the same weights several times, for several programs, and files that run code where they are
loaded. Of a repository with safetensors only the kinds of files in ``_READ`` are taken; pickles and Python code are
taken from any repository only when somebody asked for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import attrs

from gpustack.artifacts.listing import choose, is_other_model, is_projector, matches
from gpustack.artifacts.projector import by_place_and_name
from gpustack.errors import BadRequest, NotFound

_READ = (
    ".safetensors", ".json", ".jsonl", ".jinja", ".txt", ".model", ".spm", ".tiktoken", ".bpe", ".vocab", ".yaml",
    ".yml",
)  # fmt: skip
"""What engines read beside safetensors: configurations, tokenizers and chat templates."""
_NUMBERED_TOKENIZER = re.compile(r"(?:^|/)tokenizer(?:\.mm)?\.model\.v\d[0-9a-z]*$")
"""Mistral's tokenizers have their version for a suffix."""
_UNNEEDED = re.compile(
    r"(?:^|/)(?:\.[^/]*|readme[^/]*|license[^/]*|notice[^/]*|use_policy[^/]*|training_args[^/]*|events\.out[^/]*)$"
    r"|\.(?:md|png|jpe?g|gif|webp|svg|pdf|mp4|ipynb|gguf|pyc|csv|parquet)$",
    re.IGNORECASE,
)
_ELSEWHERE = re.compile(
    r"^(?:original|metal|onnx|openvino|coreml|tensorrt|flax|tf|gguf|runs|checkpoint-\d+|\.cache)/",
    re.IGNORECASE,
)
"""Folders with the same weights for other programs, or of an earlier step of the training."""
_PICKLE = re.compile(
    r"(?:^|/)(?:pytorch_model|diffusion_pytorch_model|adapter_model|optimizer|scheduler|rng_state|training_args)[^/]*\.bin$"
    r"|\.(?:pt|pth|ckpt|pkl|pickle|joblib|nemo)$",
    re.IGNORECASE,
)
"""Files that may run code where they are loaded. ``model.bin`` alone is the format of CTranslate2."""
_CODE = re.compile(r"\.(?:py|sh|so|dll|bat|exe)$", re.IGNORECASE)
_PYTHON = re.compile(r"\.py$", re.IGNORECASE)
_VARIANT = re.compile(r"\.(?:fp16|bf16|fp32|fp8|non_ema|ema)(?=[.-])", re.IGNORECASE)
_CONSOLIDATED = re.compile(r"^consolidated[^/]*\.safetensors(?:\.index\.json)?$", re.IGNORECASE)
_WHOLE_MODEL = re.compile(r"^model(?:-\d+-of-\d+)?\.safetensors$", re.IGNORECASE)


@attrs.frozen(kw_only=True)
class FileExtras:
    """What is wanted of a repository beyond the usual.

    With ``code`` Python files and pickles are taken too. With ``consolidated`` weights in the form of their maker
    are preferred to those in the form of the transformers library, where a repository has both.
    """

    code: bool = False
    consolidated: bool = False


NO_EXTRAS = FileExtras()


@attrs.frozen
class ChosenFiles:
    """The names of the files to fetch; ``main`` is the engine's (``None``: the folder), ``mmproj`` the projector."""

    main: str | None
    names: tuple[str, ...]
    mmproj: str | None = None


def chosen_files(
    names: Sequence[str],
    pattern: str | None,
    *,
    projector: str | None,
    extras: FileExtras,
    place: str,
    field: str,
) -> ChosenFiles:
    """The files of the repository ``place``; ``pattern`` is what the user gave in ``field``, if anything.

    ``projector`` is the pattern of the projector to take with a GGUF model, ``None`` for none.

    Raises NotFound when nothing matches, BadRequest when several models match, or all weights are pickles.
    """
    has_gguf = any(name.lower().endswith(".gguf") for name in names)
    has_others = any(is_other_model(name) for name in names)
    if pattern is None and not (has_gguf and not has_others):
        return ChosenFiles(None, snapshot(names, extras, place=place, field=field))
    if pattern is not None:
        found = sorted(name for name in names if matches(name, pattern))
        if found and not any(name.lower().endswith(".gguf") for name in found):
            # Files of another format, asked for by pattern: pickles and code too.
            return ChosenFiles(found[0] if len(found) == 1 else None, tuple(found))
    parts = choose(names, pattern, place=place)
    mmproj = None
    if projector is not None and not is_projector(parts[0]):
        mmproj = next(iter(by_place_and_name(names, parts[0], projector)), None)
    return ChosenFiles(parts[0], parts if mmproj is None else (*parts, mmproj), mmproj)


def snapshot(names: Iterable[str], extras: FileExtras, *, place: str, field: str) -> tuple[str, ...]:
    """The files of a repository that an engine reads, sorted. Raises as ``chosen_files`` does."""
    useful = [name for name in names if not _UNNEEDED.search(name)]
    kept = engine_files(useful, extras)
    if kept and (extras.code or _has_weights(kept) or not any(_PICKLE.search(name) for name in useful)):
        return tuple(kept)
    if pickles := sorted(name for name in useful if _PICKLE.search(name)):
        raise BadRequest(
            f"{place} has its weights as pickles only ({PurePosixPath(pickles[0]).name}), which may run code where "
            f"they are loaded: take a repository with safetensors, or name the files in {field}, or set the backend "
            "parameter --trust-remote-code"
        )
    raise NotFound(f"The repository {place} has no files that an engine could use")


def engine_files(names: Iterable[str], extras: FileExtras) -> list[str]:
    """Those of ``names`` that an engine reads, sorted: each weight once, and nothing that runs code unasked."""
    kept = [name for name in names if not _UNNEEDED.search(name) and not _ELSEWHERE.match(name)]
    kept = [name for name in kept if not _CODE.search(name) or (extras.code and _PYTHON.search(name))]
    if any(name.endswith(".safetensors") for name in kept):
        suffixes = (*_READ, ".py")
        kept = [name for name in kept if name.lower().endswith(suffixes) or _NUMBERED_TOKENIZER.search(name)]
        kept = _once(kept, extras)
    elif not extras.code:
        kept = [name for name in kept if not _PICKLE.search(name)]
    return sorted(kept)


def _once(names: list[str], extras: FileExtras) -> list[str]:
    """Without what holds the same weights again: consolidated beside sharded files, other precisions, old indexes."""
    both = any(_WHOLE_MODEL.match(name) for name in names) and any(map(_CONSOLIDATED.match, names))
    if both:
        doubled = _WHOLE_MODEL if extras.consolidated else _CONSOLIDATED
        names = [name for name in names if not doubled.match(name)]
    there = {_plain(name) for name in names if _VARIANT.search(name) is None}
    return [
        name
        for name in names
        if not name.endswith((".bin.index.json", ".msgpack.index.json"))
        and (_VARIANT.search(name) is None or _plain(name) not in there)
    ]


def _plain(name: str) -> str:
    """The name without its precision and shard: equal for the files of one set of weights."""
    return re.sub(r"-\d{5}-of-\d{5}", "", _VARIANT.sub("", name))


def _has_weights(names: Iterable[str]) -> bool:
    return any(
        PurePosixPath(name).suffix.lower() in (".safetensors", ".onnx", ".bin", ".npz", ".tflite")
        for name in names
    )

"""Which vision or audio projectors may belong to a model, by where they lie and how they are called."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from gpustack.artifacts.listing import is_projector, matches, model_of

_ORDER = ("f16", "bf16", "q8_0", "f32")
"""Which to take where there are several: half precision costs nothing visible, f32 only space."""
_KIND = re.compile(
    r"^(?:ud|i\d|i?q\d\w*|b?f16|f32|fp\d+|mxfp4\w*|tq\d\w*|k|[sml]|xs|xxs|nl|imat(?:rix)?|gguf|ggml|\d{5}|of)$"
)
"""Words of a file name that tell how the weights are stored, not whose they are."""
_OWN = re.compile(r"mmproj|projector|vision|audio|encoder|model|clip|vit")


def by_place_and_name(names: Iterable[str], main: str, pattern: str) -> list[str]:
    """The projectors among ``names`` that may belong to the model ``main``, the likeliest first.

    One that lies in a folder with models of its own, or bears the name of another model beside it, belongs there.
    """
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    models = {model_of(name) for name in ggufs if not is_projector(name)} - {model_of(main)}
    candidates = [name for name in ggufs if matches(name, pattern) and model_of(name) != model_of(main)]
    found = [name for name in candidates if not _is_of_another(name, main, models)]
    return sorted(
        found, key=lambda name: (_distance(name, main), -_likeness(name, main), _precision(name), name)
    )


def _is_of_another(name: str, main: str, models: set[str]) -> bool:
    folder = PurePosixPath(name).parent
    own = {one for one in models if PurePosixPath(one).parent == folder}
    if folder not in PurePosixPath(main).parents:
        return bool(own)  # beside or below the model's own folder
    likeness = _likeness(name, main)
    return any(_likeness(name, other) > likeness for other in models)


def _distance(name: str, main: str) -> int:
    """0 in the same folder, then the nearer above, then elsewhere."""
    above = [*PurePosixPath(main).parents]
    folder = PurePosixPath(name).parent
    return above.index(folder) if folder in above else len(above)


def _likeness(projector: str, model: str) -> int:
    """How well both names agree, bare of what tells a kind of file; 0 where one tells nothing, -1 where they differ."""
    ours, theirs = _bare(projector), _bare(model)
    if not ours or not theirs:
        return 0
    if ours == theirs:
        return 2 * len(ours)
    return min(len(ours), len(theirs)) if ours.startswith(theirs) or theirs.startswith(ours) else -1


def _bare(name: str) -> str:
    words = re.split(r"[^a-z0-9_]+|_(?=mmproj)|(?<=mmproj)_", PurePosixPath(model_of(name)).stem.lower())
    return "".join(word for word in words if word and not _KIND.match(word) and not _OWN.fullmatch(word))


def _precision(name: str) -> int:
    words = re.split(r"[^a-z0-9_]+", PurePosixPath(name).name.lower())
    return next((place for place, kind in enumerate(_ORDER) if kind in words), len(_ORDER))

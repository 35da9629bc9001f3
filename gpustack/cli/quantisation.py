"""Which model of a GGUF repository is meant: by its quantisation, by its file, or as we would choose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import attrs

from gpustack.artifacts.listing import choose, is_projector, matches, model_of
from gpustack.domain.unit import human_bytes
from gpustack.errors import BadRequest, GpustackError, NotFound

DEFAULT_TAG = "Q4_K_M"
"""The quantisation taken where the files are not known and none is named: small, and near to the original."""

_PREFERRED = (
    DEFAULT_TAG, "Q4_K_L", "Q4_K_XL", "Q4_K_S", "MXFP4", "MXFP4_MOE", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0",
    "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q6_K", "Q8_0", "Q3_K_L", "Q3_K_M", "IQ3_M", "Q3_K_S",
)  # fmt: skip
"""About four bits are the usual trade of size for quality; more bits rather than fewer. Others: the smallest."""

_UNSLOTH = "UD-"
_TAG = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q[1-8](?:_(?:[0-9]|K|NL|XXS|XS|S|M|L|XL))*|TQ[12]_0|MXFP4(?:_MOE)?|BF16|FP?16|FP?32))"
    r"(?=[-._/]|$)",
    re.IGNORECASE,
)
_LISTED = 12


@attrs.frozen(kw_only=True)
class Variant:
    """One model of a repository in one quantisation, all its shards. ``name`` is its file, without shard numbers."""

    name: str
    files: tuple[str, ...]
    tag: str | None = None
    size: int | None = None

    @property
    def shown(self) -> str:
        """``Q4_K_M (2.4 GiB)``; the file's name where that names no quantisation."""
        return f"{self.tag or self.name}{f' ({human_bytes(self.size)})' if self.size else ''}"


def variants(files: Mapping[str, int | None]) -> list[Variant]:
    """The models among the files of a repository (sizes by name), by name; projectors are none."""
    groups: dict[str, list[str]] = {}
    for name in sorted(files):
        if name.lower().endswith(".gguf") and not is_projector(name):
            groups.setdefault(model_of(name), []).append(name)
    return [_variant(name, members, files) for name, members in groups.items()]


def _variant(name: str, members: Sequence[str], files: Mapping[str, int | None]) -> Variant:
    tags = _TAG.findall(name[: -len(".gguf")])
    sizes = [size for member in members if (size := files[member]) is not None]
    size = sum(sizes) if len(sizes) == len(members) else None
    return Variant(name=name, files=tuple(members), tag=tags[-1] if tags else None, size=size)


def named(found: Sequence[Variant], asked: str, repo: str) -> Variant:
    """The one that ``asked`` names: a file, a pattern, a quantisation or a part of a file's name; case does not count.

    Raises NotFound with what there is, and BadRequest when several are meant.
    """
    for is_meant in (_by_file, _by_tag, _by_part):
        meant = [one for one in found if is_meant(one, asked)]
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise BadRequest(
                f"{repo}:{asked} may be any of {_some(one.name for one in meant)}; name the file of one: {repo}:FILE"
            )
    raise NotFound(f"There is no {asked} in {repo}; there are {_some(one.tag or one.name for one in found)}")


def preferred(found: Sequence[Variant], repo: str) -> Variant:
    """The one to take where none is named. Raises BadRequest when the repository has different models."""
    best = min(found, key=_rank)
    equal = [one for one in found if _rank(one)[0] == _rank(best)[0] and one.tag == best.tag]
    if len(equal) > 1:
        raise BadRequest(
            f"{repo} has several models: {_some(one.name for one in equal)}; name the file of one: {repo}:FILE"
        )
    return best


def _rank(one: Variant) -> tuple[int, bool, float, str]:
    tag = (one.tag or "").upper()
    bare = tag.removeprefix(_UNSLOTH)
    place = _PREFERRED.index(bare) if bare in _PREFERRED else len(_PREFERRED)
    return place, tag != bare, float("inf") if one.size is None else one.size, one.name


def remark(taken: Variant, found: Sequence[Variant], repo: str) -> str:
    """What is taken unasked, and how another one is had."""
    others = [one.tag or one.name for one in sorted(found, key=_rank) if one is not taken]
    if not others:
        return f"Taking {taken.shown}."
    return f"Taking {taken.shown}; others are {repo}:TAG ({_some(others)})."


def pattern_of(taken: Variant, names: Iterable[str]) -> str:
    """How a deployment names it: by its quantisation where that is enough, else by its file."""
    every = list(names)
    if taken.tag is not None and _picks(f"*{taken.tag}*.gguf", every, taken):
        return f"*{taken.tag}*.gguf"
    return taken.files[0]


def _picks(pattern: str, names: Sequence[str], taken: Variant) -> bool:
    try:
        return model_of(choose(names, pattern, place="")[0]) == taken.name
    except GpustackError:
        return False


def pattern_for(asked: str) -> str:
    """The pattern for a quantisation or file of a repository that cannot be looked at."""
    return asked if "*" in asked or asked.lower().endswith(".gguf") else f"*{asked}*.gguf"


def _by_file(one: Variant, asked: str) -> bool:
    is_file = "*" in asked or asked.lower().endswith(".gguf")
    return is_file and any(matches(name.lower(), asked.lower()) for name in (one.name, *one.files))


def _by_tag(one: Variant, asked: str) -> bool:
    return (one.tag or "").upper() == asked.upper()


def _by_part(one: Variant, asked: str) -> bool:
    return asked.upper() in PurePosixPath(one.name).name.upper()


def _some(names: Iterable[str]) -> str:
    found = list(dict.fromkeys(names))
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return ", ".join(found[:_LISTED]) + more

"""Which model of a repository of the hub is meant: by its quantisation, by its file, or as we would choose.

The repository is looked at through the server, which has the address of the hub, its token and a way out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import quote, urlencode

import attrs

from gpustack.artifacts.listing import choose, is_projector, matches, model_of
from gpustack.cli.source import ModelReference
from gpustack.domain.unit import human_bytes
from gpustack.errors import BadRequest, GpustackError, NotFound
from gpustack.remote.admin_client import AdminClient
from gpustack.remote.http import HttpResponse, RemoteError
from gpustack.text import listed

DEFAULT_TAG = "Q4_K_M"
"""The quantisation taken where none is named and the files are not known: small, with little loss of quality."""

_PREFERRED = (
    DEFAULT_TAG, "Q4_K_L", "Q4_K_XL", "Q4_K_S", "MXFP4", "MXFP4_MOE", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0",
    "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q6_K", "Q8_0", "Q3_K_L", "Q3_K_M", "IQ3_M", "Q3_K_S",
)  # fmt: skip
"""Best first: about four bits are the usual trade of size for quality, then more bits, then fewer. Of others the
smallest is taken."""

_UNSLOTH = "UD-"
_TAG = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q[1-8](?:_(?:[0-9]|K|NL|XXS|XS|S|M|L|XL))*|TQ[12]_0|MXFP4(?:_MOE)?|BF16|FP?16|FP?32))"
    r"(?=[-._/]|$)",
    re.IGNORECASE,
)
_LISTED = 12

_HUB = "https://huggingface.co"
"""The address that the proxy of the server is asked for; the server puts its own hub in place of it."""
_MODEL_SCOPE = "https://www.modelscope.cn"
"""The same for ModelScope."""
FILE_FIELD = {"huggingface": "huggingface_filename", "model_scope": "model_scope_file_path"}
"""The field that names a file of a repository, by the kind of source."""
_NOT_THERE = {"RepoNotFound", "RevisionNotFound"}


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


async def source_fields(client: AdminClient, asked: ModelReference) -> tuple[Mapping[str, str], str]:
    """The fields of the source with the file that is meant, and a remark on the choice for the person (may be empty).

    A hub that does not answer is no error here: workers may have the files already. Raises NotFound for a
    repository or file that the hub does not have, BadRequest when several files are meant.
    """
    if asked.repo is None:
        return asked.fields, ""
    try:
        reply = await client.through(f"/proxy?url={quote(listing_url(asked), safe='')}")
    except RemoteError:
        return meant(asked, None)
    return meant(asked, sizes_of(asked, reply))


def meant(asked: ModelReference, files: Mapping[str, int | None] | None) -> tuple[Mapping[str, str], str]:
    """The same by the sizes of the repository's files; ``None`` where the hub does not list them."""
    field, repo = FILE_FIELD[asked.fields["source"]], asked.repo or ""
    if files is None:
        return _unseen(asked)
    found = variants(files)
    if not found:
        if asked.file and "*" not in asked.file and asked.file not in files:
            raise NotFound(f"{asked.repo} has no GGUF file, and no file {asked.file}")
        return {**asked.fields, **({field: asked.file} if asked.file else {})}, ""
    if asked.file:
        taken, told = find_variant(found, asked.file, repo), ""
    else:
        taken = choose_variant(found, repo)
        told = remark(taken, found, repo)
    return {**asked.fields, field: pattern_of(taken, files)}, told


def _unseen(asked: ModelReference) -> tuple[Mapping[str, str], str]:
    """The same for a repository whose files cannot be listed now."""
    field = FILE_FIELD[asked.fields["source"]]
    if asked.file:
        return {**asked.fields, field: pattern_for(asked.file)}, ""
    if "gguf" not in (asked.repo or "").lower():
        return asked.fields, ""
    told = f"The hub does not list {asked.repo} now. Taking {DEFAULT_TAG}; others are {asked.repo}:TAG."
    return {**asked.fields, field: pattern_for(DEFAULT_TAG)}, told


def listing_url(asked: ModelReference, *, hub: str = _HUB, model_scope: str = _MODEL_SCOPE) -> str:
    """Where the files of a repository are listed, at the public hubs or at others of the same API."""
    repo, revision = asked.repo or "", asked.fields.get("revision")
    if asked.fields["source"] == "model_scope":
        query = urlencode({"Revision": revision or "master", "Recursive": "True"})
        return f"{model_scope}/api/v1/models/{quote(repo)}/repo/files?{query}"
    place = f"/revision/{quote(revision, safe='')}" if revision else ""
    return f"{hub}/api/models/{quote(repo)}{place}?blobs=true"


def sizes_of(asked: ModelReference, reply: HttpResponse) -> Mapping[str, int | None] | None:
    """The sizes of all files by name, out of a hub's answer; ``None`` where it is no list. Raises NotFound."""
    revision = asked.fields.get("revision")
    if reply.headers.get("x-error-code") in _NOT_THERE:
        where = f"{asked.repo} at {revision}" if revision else asked.repo
        raise NotFound(
            f"There is no repository {where} on the hub, or it is private and the server's --huggingface-token may "
            "not read it"
        )
    if reply.status != 200:
        return None
    of_model_scope = asked.fields["source"] == "model_scope"
    return _model_scope_sizes(reply.body) if of_model_scope else _sizes(reply.body)


def _sizes(body: bytes) -> Mapping[str, int | None] | None:
    try:
        siblings = json.loads(body)["siblings"]
        told = {str(one["rfilename"]): one.get("size") for one in siblings}
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    return {name: size if isinstance(size, int) else None for name, size in told.items()}


def _model_scope_sizes(body: bytes) -> Mapping[str, int | None] | None:
    try:
        entries = json.loads(body)["Data"]["Files"]
        told = {str(one["Path"]): one.get("Size") for one in entries if one.get("Type") != "tree"}
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    return {name: size if isinstance(size, int) else None for name, size in told.items()}


def variants(files: Mapping[str, int | None]) -> list[Variant]:
    """The models among the files of a repository (sizes by name), in the order of names, without projectors."""
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


def find_variant(found: Sequence[Variant], asked: str, repo: str) -> Variant:
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


def choose_variant(found: Sequence[Variant], repo: str) -> Variant:
    """The one to take where none is named. Raises BadRequest when several models are equally good."""
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
    """A sentence: what was taken, and how to name another one."""
    others = [one.tag or one.name for one in sorted(found, key=_rank) if one is not taken]
    if not others:
        return f"Taking {taken.shown}."
    return f"Taking {taken.shown}; others are {repo}:TAG ({_some(others)})."


def pattern_of(taken: Variant, names: Iterable[str]) -> str:
    """The pattern that names it in a deployment: its quantisation where that is unique, else its file."""
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
    """The pattern for a quantisation or file of a repository whose files are not known."""
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
    return listed(found, _LISTED)

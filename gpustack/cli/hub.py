"""Looks at a repository of the hub through the server, which has the hub's address, its token and a way out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote

from gpustack.cli import quantisation
from gpustack.cli.quantisation import DEFAULT_TAG
from gpustack.cli.source import ModelReference
from gpustack.errors import NotFound
from gpustack.remote.admin_client import AdminClient
from gpustack.remote.http import RemoteError

_HUB = "https://huggingface.co"
"""The server asks its own hub in place of this one."""
_NOT_THERE = {"RepoNotFound", "RevisionNotFound"}


async def source_fields(client: AdminClient, asked: ModelReference) -> tuple[Mapping[str, str], str]:
    """The fields of the source with the file that is meant, and what a person should know of the choice.

    A hub that does not answer is left to whoever fetches: the files may be there already. Raises NotFound for a
    repository or file that the hub does not have, BadRequest when several files are meant.
    """
    if asked.repo is None:
        return asked.fields, ""
    files = await _files(client, asked.repo, asked.fields.get("revision"))
    if files is None:
        return _unseen(asked)
    found = quantisation.variants(files)
    if not found:
        if asked.file and "*" not in asked.file and asked.file not in files:
            raise NotFound(f"{asked.repo} has no GGUF file, and no file {asked.file}")
        return {**asked.fields, **({"huggingface_filename": asked.file} if asked.file else {})}, ""
    if asked.file:
        taken, remark = quantisation.named(found, asked.file, asked.repo), ""
    else:
        taken = quantisation.preferred(found, asked.repo)
        remark = quantisation.remark(taken, found, asked.repo)
    pattern = quantisation.pattern_of(taken, files)
    return {**asked.fields, "huggingface_filename": pattern}, remark


def _unseen(asked: ModelReference) -> tuple[Mapping[str, str], str]:
    if asked.file:
        return {**asked.fields, "huggingface_filename": quantisation.pattern_for(asked.file)}, ""
    if "gguf" not in (asked.repo or "").lower():
        return asked.fields, ""
    pattern = quantisation.pattern_for(DEFAULT_TAG)
    remark = f"The hub does not list {asked.repo} now. Taking {DEFAULT_TAG}; others are {asked.repo}:TAG."
    return {**asked.fields, "huggingface_filename": pattern}, remark


async def _files(client: AdminClient, repo: str, revision: str | None) -> Mapping[str, int | None] | None:
    """The sizes of all files by name; ``None`` when nobody can say now."""
    place = f"/revision/{quote(revision, safe='')}" if revision else ""
    address = f"{_HUB}/api/models/{quote(repo)}{place}?blobs=true"
    try:
        reply = await client.through(f"/proxy?url={quote(address, safe='')}")
    except RemoteError:
        return None
    if reply.headers.get("x-error-code") in _NOT_THERE:
        where = f"{repo} at {revision}" if revision else repo
        raise NotFound(
            f"There is no repository {where} on the hub, or it is private and the server's --huggingface-token may "
            "not read it"
        )
    return _sizes(reply.body) if reply.status == 200 else None


def _sizes(body: bytes) -> Mapping[str, int | None] | None:
    try:
        siblings = json.loads(body)["siblings"]
        told = {str(one["rfilename"]): one.get("size") for one in siblings}
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    return {name: size if isinstance(size, int) else None for name, size in told.items()}

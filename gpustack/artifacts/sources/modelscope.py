"""Models on ModelScope, or on a site with the same API (MODELSCOPE_ENDPOINT, MODELSCOPE_DOMAIN).

A repository is listed with the size and SHA-256 of every file; files are asked for by name and revision, and large ones
come over a redirect to a store that takes ranges. Facts of the API: the client in modelscope/hub of
github.com/modelscope/modelscope (api.py: get_model_files; file_download.py: get_file_download_url).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import attrs

from gpustack.artifacts.listing import MOST_FILES, Listing, RemoteFile, folder_of, safe_name
from gpustack.artifacts.repository import chosen_files
from gpustack.artifacts.source import SourceSettings
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import (
    BadRequest,
    Forbidden,
    GpustackError,
    Invalid,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from gpustack.remote.http import HttpResponse, RemoteError, shown
from gpustack.remote.redirect import fetch_document
from gpustack.text import is_text, printable

DEFAULT_ENDPOINT = "https://www.modelscope.cn"
REVISION = "master"
"""The branch that a repository of ModelScope has where nothing else is said."""

_LARGEST_LISTING = 16 << 20
_REPO = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)


@attrs.frozen
class ModelScope:
    """Files lie under ``model_scope/<organisation>/<repository>``, with ``@<revision>`` where one is named."""

    kind: SourceKind = SourceKind.MODEL_SCOPE
    is_local: bool = False

    async def resolve(self, source: ModelSource, settings: SourceSettings) -> Listing:
        """As ``Source``. Raises NotFound, Forbidden, BadRequest, Invalid, TooManyRequests, Unavailable."""
        repo, revision = source.model_scope_model_id or "", source.revision or REVISION
        if not _REPO.fullmatch(repo) or ".." in repo:
            raise Invalid(f"model_scope_model_id must be <organisation>/<repository>, not {repo!r}")
        endpoint = (settings.model_scope.endpoint or DEFAULT_ENDPOINT).rstrip("/")
        headers = _credentials(settings.model_scope.token)
        query = urlencode({"Revision": revision, "Recursive": "True"})
        place = f"{endpoint}/api/v1/models/{quote(repo)}"
        answer = await _fetch_listing(
            f"{place}/repo/files?{query}", headers, shown(endpoint), settings.deadline
        )
        listed = _files(answer, source, shown(endpoint), settings.model_scope.token)
        chosen = chosen_files(
            tuple(listed),
            source.model_scope_file_path,
            projector=settings.projector,
            extras=settings.extras,
            place=repo,
            field="model_scope_file_path",
        )
        files = tuple(
            attrs.evolve(
                listed[name],
                name=safe_name(name),
                url=f"{place}/repo?{urlencode({'Revision': revision, 'FilePath': name})}",
                headers=headers,
            )
            for name in chosen.names
        )
        return Listing(
            folder=folder_of("model_scope", repo, source.revision, REVISION),
            files=files,
            main=chosen.main,
            mmproj=chosen.mmproj,
            revision=_state_of(files),
        )


def _credentials(token: str | None) -> dict[str, str]:
    """ModelScope takes a token as a bearer, and on its older paths as a session's cookie."""
    if not token:
        return {}
    return {"authorization": f"Bearer {token}", "cookie": f"m_session_id={token}"}


async def _fetch_listing(url: str, headers: Mapping[str, str], place: str, deadline: float) -> HttpResponse:
    try:
        return await fetch_document(url, headers=headers, limit=_LARGEST_LISTING, deadline=deadline)
    except RemoteError as error:
        raise Unavailable(
            f"ModelScope ({place}) {error.fault}; set MODELSCOPE_ENDPOINT to a mirror, or HTTPS_PROXY, or deploy a "
            "file by its path"
        ) from error


def _files(answer: HttpResponse, source: ModelSource, place: str, token: str | None) -> dict[str, RemoteFile]:
    """The files that an answer lists, by name. Raises what the site refuses with."""
    document = _document(answer.body)
    # A refusal may come with status 200 and a code of its own inside.
    if answer.status != 200 or (document is not None and document.get("Success") is False):
        raise _refusal(answer.status, document or {}, source, place, token)
    try:
        entries = (document or {})["Data"]["Files"]
        if not isinstance(entries, list):
            raise TypeError("Files")
        if len(entries) > MOST_FILES:
            raise BadRequest(f"The repository {source.repo} has more than {MOST_FILES} files")
        found = [_file(entry) for entry in entries if entry.get("Type") != "tree"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable(f"{place} does not answer like ModelScope: check MODELSCOPE_ENDPOINT") from error
    return {file.name: file for file in found}


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _file(entry: Mapping[str, Any]) -> RemoteFile:
    """Raises KeyError, TypeError or ValueError for an entry of another form. Whether its name is safe is not asked."""
    name, size, digest = entry["Path"], entry["Size"], entry.get("Sha256")
    if not isinstance(name, str) or not is_text(name) or type(size) is not int or not 0 <= size < 1 << 62:
        raise ValueError("file")
    found = _SHA256.fullmatch(digest) if isinstance(digest, str) else None
    return RemoteFile(name=name, size=size, sha256=None if found is None else found[0].lower())


def _refusal(
    status: int, document: Mapping[str, Any], source: ModelSource, place: str, token: str | None
) -> GpustackError:
    """The error for a refusal. The site has codes of its own in the body, whose last digits are not documented."""
    said = document.get("Message")
    told = f" ({printable(said, 200)})" if isinstance(said, str) and said else ""
    asked = f"{source.repo} in revision {source.revision}" if source.revision else source.repo
    if status in (401, 403):
        return Forbidden(
            f"{place} does not open {source.repo}{told}: accept its terms there and set MODELSCOPE_API_TOKEN"
        )
    if status == 404 or (status == 200 and document.get("Success") is False):
        advice = (
            "that MODELSCOPE_API_TOKEN may see" if token else "or it is private: set MODELSCOPE_API_TOKEN"
        )
        return NotFound(f"There is no repository {asked} on {place}, {advice}{told}")
    if status == 429:
        return TooManyRequests(f"{place} asks us to come back later: too many requests")
    return Unavailable(f"{place} failed to list {asked} (status {status}){told}")


def _state_of(files: tuple[RemoteFile, ...]) -> str | None:
    """A text that changes with the files: a listing does not name the commit. ``None`` where a hash is missing."""
    if any(file.sha256 is None for file in files):
        return None
    return hashlib.sha256("\n".join(f"{file.name} {file.sha256}" for file in files).encode()).hexdigest()


SOURCE = ModelScope()

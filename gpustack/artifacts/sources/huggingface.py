"""Models on Hugging Face, or on a hub with the same API (HF_ENDPOINT).

The hub's own library lists a repository, since it knows revisions, gating and tokens; files come by our fetcher, which
continues and verifies downloads. Both use the proxies of ``config/proxy.py`` and the same bounds on redirects.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from typing import TYPE_CHECKING

import attrs
import trio

from gpustack.artifacts.hub_client import hub_http, hub_session
from gpustack.artifacts.listing import MOST_FILES, Listing, RemoteFile, folder_of, safe_name
from gpustack.artifacts.range_request import with_size
from gpustack.artifacts.repository import chosen_files
from gpustack.artifacts.source import SourceSettings
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import (
    BadRequest,
    Forbidden,
    GatewayTimeout,
    GpustackError,
    Invalid,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from gpustack.nursery.limiter import threads
from gpustack.remote.http import Timeouts, open_client, reason_of, shown
from gpustack.remote.proxy_transport import ProxyFault
from gpustack.text import is_text

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

DEFAULT_ENDPOINT = "https://huggingface.co"
CALL_TIMEOUT = 20.0
"""Seconds that the hub may be silent within a call."""

_REPO = re.compile(r"^[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*$|^[A-Za-z0-9][\w.\-]*$", re.ASCII)
_UNKNOWN_SIZE = -1
"""Stands for a size that is not known yet, within this module."""

_hub_calls = threads("hub listings", 4)


@attrs.frozen
class HuggingFace:
    """Files lie under ``huggingface/<organisation>/<repository>``, with ``@<revision>`` where one is named."""

    kind: SourceKind = SourceKind.HUGGING_FACE
    is_local: bool = False

    async def resolve(self, source: ModelSource, settings: SourceSettings) -> Listing:
        """As ``Source``. Raises NotFound, Forbidden, BadRequest, Invalid, TooManyRequests, Unavailable,
        GatewayTimeout.
        """
        repo = source.huggingface_repo_id or ""
        if not _REPO.match(repo) or ".." in repo or "--" in repo:
            raise Invalid(f"huggingface_repo_id must be <organisation>/<repository>, not {repo!r}")
        endpoint = endpoint_of(settings)
        with trio.move_on_after(settings.deadline):
            info = await _hub_calls.run(
                _model_info, repo, source.revision, endpoint, settings.token, abandon=True
            )
            return await _with_sizes(_listing(source, settings, endpoint, info), settings)
        raise GatewayTimeout(f"The hub {shown(endpoint)} did not list {repo} within {settings.deadline:g} s")


def endpoint_of(settings: SourceSettings) -> str:
    """The URL of the hub: from the settings, HF_ENDPOINT, or the public one. Raises Invalid unless it is http(s)."""
    endpoint = (settings.endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    try:
        parts = urllib.parse.urlsplit(endpoint)
        _ = parts.port
    except ValueError:
        raise Invalid("HF_ENDPOINT must be an http or https address, and is malformed") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise Invalid(f"HF_ENDPOINT must be an http or https address, not {shown(endpoint)!r}")
    return endpoint


def _model_info(repo: str, revision: str | None, endpoint: str, token: str | None) -> ModelInfo:
    """Ask the hub about a repository, and turn its errors into ours. Blocking."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub_session()
    api = HfApi(endpoint=endpoint, token=token or False)
    place, library = shown(endpoint), hub_http()
    try:
        return api.model_info(repo, revision=revision, files_metadata=True, timeout=CALL_TIMEOUT)
    except GatedRepoError as error:
        raise _gated_error(repo, place, token) from error
    except RepositoryNotFoundError as error:
        raise _not_found_error(repo, place, token) from error
    except RevisionNotFoundError as error:
        raise NotFound(f"The repository {repo} on {place} has no revision {revision!r}") from error
    except HFValidationError as error:
        raise Invalid(f"huggingface_repo_id {repo!r} is not a repository name") from error
    except OfflineModeIsEnabled as error:
        raise Unavailable(
            "HF_HUB_OFFLINE is set, so that nothing is fetched from the hub: unset it"
        ) from error
    except HfHubHTTPError as error:
        raise _http_error(error, repo, place, token) from error
    except (library.HTTPError, library.InvalidURL, ProxyFault, OSError) as error:
        raise _connection_error(error, place) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _no_hub_error(place) from error  # something else answers there


def _connection_error(error: Exception, endpoint: str) -> GpustackError:
    if isinstance(error, ProxyFault):
        return Unavailable(f"The hub {endpoint} cannot be reached: {error}")
    # The message about a malformed address may contain a part of a password.
    reason = "its address is malformed" if type(error).__name__ == "InvalidURL" else reason_of(error)
    return Unavailable(
        f"The hub {endpoint} cannot be reached ({reason}); set HF_ENDPOINT to a mirror, or HTTPS_PROXY, or "
        "deploy a file by its path"
    )


def _no_hub_error(endpoint: str) -> GpustackError:
    return Unavailable(f"{endpoint} does not answer like a model hub: check HF_ENDPOINT")


def _http_error(error: Exception, repo: str, endpoint: str, token: str | None) -> GpustackError:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status in (401, 403):
        return _gated_error(repo, endpoint, token)
    if status == 404:
        return _not_found_error(repo, endpoint, token)
    if status == 429:
        return TooManyRequests(f"The hub {endpoint} asks us to come back later: too many requests")
    return Unavailable(f"The hub {endpoint} failed to list {repo} (status {status})")


def _gated_error(repo: str, endpoint: str, token: str | None) -> GpustackError:
    if token is None:
        return Forbidden(
            f"The repository {repo} on {endpoint} is gated: accept its terms there and set --huggingface-token"
        )
    return Forbidden(
        f"The repository {repo} on {endpoint} does not open to the token of --huggingface-token: accept its terms "
        "there with that account, or use another token"
    )


def _not_found_error(repo: str, endpoint: str, token: str | None) -> GpustackError:
    if token is None:
        return NotFound(
            f"There is no repository {repo} on {endpoint}, or it is private: then set --huggingface-token"
        )
    return NotFound(
        f"There is no repository {repo} on {endpoint} that the token of --huggingface-token may see"
    )


def _listing(source: ModelSource, settings: SourceSettings, endpoint: str, info: ModelInfo) -> Listing:
    repo = source.huggingface_repo_id or ""
    siblings = info.siblings or []
    if len(siblings) > MOST_FILES:
        raise BadRequest(f"The repository {repo} has more than {MOST_FILES} files")
    if not isinstance(info.sha, str | None) or not all(_is_sound(sibling) for sibling in siblings):
        raise _no_hub_error(shown(endpoint))
    names = [sibling.rfilename for sibling in siblings]
    chosen = chosen_files(
        names,
        source.huggingface_filename,
        projector=settings.projector,
        extras=settings.extras,
        place=repo,
        field="huggingface_filename",
    )
    commit = info.sha or source.revision or "main"
    known = {sibling.rfilename: sibling for sibling in siblings}
    headers = {"authorization": f"Bearer {settings.token}"} if settings.token else {}
    files = []
    for name in chosen.names:
        told = known[name]
        path = urllib.parse.quote(safe_name(name))
        files.append(
            RemoteFile(
                name=name,
                size=_UNKNOWN_SIZE if told.size is None else told.size,
                sha256=told.lfs.sha256 if told.lfs is not None else None,
                git_sha1=told.blob_id if told.lfs is None else None,
                url=f"{endpoint}/{repo}/resolve/{urllib.parse.quote(commit, safe='')}/{path}",
                headers=headers,
            )
        )
    return Listing(
        folder=folder_of("huggingface", repo, source.revision, "main"),
        files=tuple(files),
        main=chosen.main,
        mmproj=chosen.mmproj,
        revision=info.sha,
    )


async def _with_sizes(listing: Listing, settings: SourceSettings) -> Listing:
    """The listing, with sizes that a mirror does not state asked file by file."""
    if all(file.size != _UNKNOWN_SIZE for file in listing.files):
        return listing
    timeouts = Timeouts(stall=CALL_TIMEOUT)
    async with open_client(timeouts=timeouts) as client:
        files = [
            await with_size(client, file) if file.size == _UNKNOWN_SIZE else file for file in listing.files
        ]
    return attrs.evolve(listing, files=tuple(files))


def _is_sound(sibling: RepoSibling) -> bool:
    """Whether the fields of a file have the types that the library declares, but does not check."""
    hashes = (sibling.blob_id, sibling.lfs.sha256 if sibling.lfs is not None else None)
    size = sibling.size
    return (
        isinstance(sibling.rfilename, str)
        and is_text(sibling.rfilename)
        and (size is None or (type(size) is int and 0 <= size < 1 << 62))
        and all(isinstance(one, str | None) for one in hashes)
    )


SOURCE = HuggingFace()

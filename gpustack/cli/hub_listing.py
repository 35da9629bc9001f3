"""The files of a repository as its hub lists them, asked from this machine: for commands that need no server."""

from __future__ import annotations

from collections.abc import Mapping

from gpustack.artifacts.sources.huggingface import DEFAULT_ENDPOINT as HUB
from gpustack.artifacts.sources.modelscope import DEFAULT_ENDPOINT as MODEL_SCOPE
from gpustack.cli.daemon.model_file import model_scope_endpoint
from gpustack.cli.repository import listing_url, sizes_of
from gpustack.cli.source import ModelReference
from gpustack.config.loader import Configuration
from gpustack.errors import Unavailable
from gpustack.remote.http import RemoteError
from gpustack.remote.redirect import fetch_document

_LARGEST = 16 << 20


async def listed_files(asked: ModelReference, loaded: Configuration) -> Mapping[str, int | None] | None:
    """The sizes of all files by name, from the hub and with the token of this environment; ``None`` where it does not
    list them. Raises NotFound for a repository that there is not, Unavailable where the hub does not answer."""
    variables = loaded.environment
    of_model_scope = asked.fields["source"] == "model_scope"
    token = variables.modelscope_api_token if of_model_scope else loaded.options.huggingface_token
    url = listing_url(
        asked,
        hub=(variables.hf_endpoint or HUB).rstrip("/"),
        model_scope=(model_scope_endpoint(variables) or MODEL_SCOPE).rstrip("/"),
    )
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        return sizes_of(asked, await fetch_document(url, headers=headers, limit=_LARGEST))
    except RemoteError as error:
        raise Unavailable(f"The hub {error.fault}; set HF_ENDPOINT to a mirror, or HTTPS_PROXY") from error

"""Models of the Ollama library, or of a registry with the same API (--ollama-library-base-url)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.artifacts.listing import Listing, RemoteFile
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
from gpustack.remote.http import HttpResponse, RemoteError
from gpustack.remote.redirect import fetch_document

_MODEL = "application/vnd.ollama.image.model"
_PROJECTOR = "application/vnd.ollama.image.projector"
_ADAPTER = "application/vnd.ollama.image.adapter"
_ACCEPT = "application/vnd.docker.distribution.manifest.v2+json"
_LARGEST_MANIFEST = 1 << 20
_MOST_LAYERS = 1000
_NAME = re.compile(
    r"(?:(?P<owner>[A-Za-z0-9][\w.-]{0,79})/)?(?P<name>[A-Za-z0-9][\w.-]{0,79})(?::(?P<tag>\w[\w.-]{0,79}))?",
    re.ASCII,
)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)


@attrs.frozen
class OllamaLibrary:
    """A model is one file, ``ollama/<owner>/<name>/<tag>/model.gguf``, with its projector beside it if it has one.

    Other layers of a manifest (templates, parameters, licences) are for Ollama itself and are not fetched.
    """

    kind: SourceKind = SourceKind.OLLAMA
    is_local: bool = False

    async def resolve(self, source: ModelSource, settings: SourceSettings) -> Listing:
        """As ``Source``; raises Invalid, BadRequest, NotFound, Forbidden, TooManyRequests, Unavailable."""
        text = source.ollama_library_model_name or ""
        found = _NAME.fullmatch(text)
        if found is None or ".." in text:
            raise Invalid(f"ollama_library_model_name must be [<owner>/]<name>[:<tag>], not {text!r}")
        base = settings.library.rstrip("/")
        owner, name, tag = found["owner"] or "library", found["name"], found["tag"] or "latest"
        place = f"{base}/v2/{owner}/{name}"
        answer = await _fetch_manifest(f"{place}/manifests/{tag}", base, settings.deadline)
        if answer.status != 200:
            raise _refusal(answer.status, text, base)
        layers = _layers(answer.body, base)
        if _ADAPTER in layers:
            raise BadRequest(
                f"{text} of {base} is an adapter to another model, which cannot be served by itself"
            )
        if _MODEL not in layers:
            raise BadRequest(f"{text} of {base} has no GGUF file")
        model = _file("model.gguf", layers[_MODEL], place)
        has_projector = _PROJECTOR in layers and settings.projector is not None
        projector = _file("mmproj.gguf", layers[_PROJECTOR], place) if has_projector else None
        return Listing(
            folder=f"ollama/{owner}/{name}/{tag}",
            files=(model,) if projector is None else (model, projector),
            main=model.name,
            mmproj=None if projector is None else projector.name,
            revision=model.sha256,
        )


async def _fetch_manifest(url: str, base: str, deadline: float) -> HttpResponse:
    try:
        return await fetch_document(
            url, headers={"accept": _ACCEPT}, limit=_LARGEST_MANIFEST, deadline=deadline
        )
    except RemoteError as error:
        raise Unavailable(
            f"The Ollama library {base} {error.fault}; set --ollama-library-base-url to a mirror, or HTTPS_PROXY, or "
            "deploy a file by its path"
        ) from error


def _refusal(status: int, name: str, base: str) -> GpustackError:
    if status == 404:
        return NotFound(f"There is no model {name} in the Ollama library {base}")
    if status in (401, 403):
        return Forbidden(f"The Ollama library {base} does not open {name} to everybody")
    if status == 429:
        return TooManyRequests(f"The Ollama library {base} asks us to come back later: too many requests")
    return Unavailable(f"The Ollama library {base} failed to list {name} (status {status})")


def _layers(body: bytes, base: str) -> Mapping[str, Mapping[str, Any]]:
    """The layers of a manifest by media type, the first of each. Raises Unavailable for anything else."""
    try:
        layers = json.loads(body)["layers"]
        if not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
            raise TypeError("layers")
        found: dict[str, Mapping[str, Any]] = {}
        for layer in layers:
            digest, size = _DIGEST.fullmatch(layer["digest"]), layer["size"]
            if digest is None or type(size) is not int or not 0 <= size < 1 << 62:
                raise ValueError("layer")
            found.setdefault(str(layer["mediaType"]), {"sha256": digest[1], "size": size})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unavailable(
            f"{base} does not answer like an Ollama library: check --ollama-library-base-url"
        ) from error
    return found


def _file(name: str, layer: Mapping[str, Any], place: str) -> RemoteFile:
    digest = layer["sha256"]
    return RemoteFile(name=name, size=layer["size"], sha256=digest, url=f"{place}/blobs/sha256:{digest}")


SOURCE = OllamaLibrary()

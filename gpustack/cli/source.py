"""Reads what ``gpustack run`` and ``pull`` are asked for: a path, a repository, or a model of the Ollama library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import attrs

from gpustack.errors import GpustackError, NotFound

_HUB = re.compile(r"(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/|hf:|huggingface:", re.IGNORECASE)
_OLLAMA = re.compile(r"(?:https?://)?(?:www\.)?(?:registry\.)?ollama\.(?:com|ai)/|ollama:", re.IGNORECASE)
_MODEL_SCOPE = re.compile(
    r"(?:https?://)?(?:www\.)?modelscope\.(?:cn|ai|com)/|modelscope:|ms:", re.IGNORECASE
)
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_LIBRARY = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*(?::[\w.-]+)?", re.ASCII)
_PAGE = re.compile(r"(?P<repo>[^/]+/[^/]+)/(?:blob|resolve|tree)/(?P<revision>[^/]+)(?:/(?P<file>.+))?/?")
_MODEL_SCOPE_PAGE = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?::(?P<tag>[^/]+)|/(?:file/view|resolve)/(?P<revision>[^/]+)/(?P<file>.+)"
    r"|/(?:summary|files|feedback|quickstart))?/?",
    re.ASCII,
)
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_PLACES = ("./", "../", "~", "/")
_HERE = frozenset({".", ".."})


@attrs.frozen(kw_only=True)
class ModelReference:
    """A source of a model: the ``fields`` of a deployment, and the ``name`` that it suggests.

    ``repo`` is set for a repository of the hub, whose list of files tells what ``file`` means.
    """

    name: str
    fields: Mapping[str, str]
    repo: str | None = None
    file: str = ""
    is_absent: bool = False
    """A path that is not on this machine; a worker may have it."""


def read_source(text: str, cwd: Path) -> ModelReference | None:
    """The source that ``text`` names; ``None`` when it can only be the name of a deployment.

    What is on disk, or begins like a path, is a path; it becomes absolute. Raises GpustackError for a path that
    leads nowhere and would not mean the same elsewhere, and for a place that models cannot be had from.
    """
    if not text.strip():
        raise GpustackError("MODEL is empty: name a deployment, a path or a repository (. is this folder)")
    if text in _HERE or text.startswith(_PLACES) or (not _is_address(text) and (cwd / text).exists()):
        return _path(text, cwd)
    if found := _MODEL_SCOPE.match(text):
        return _model_scope(text, text[found.end() :].removeprefix("models/"))
    if found := _OLLAMA.match(text):
        return _library(text, text[found.end() :].removeprefix("library/"))
    hub = _HUB.match(text)
    rest = text[hub.end() if hub else 0 :]
    if hub and (page := _PAGE.fullmatch(unquote(urlsplit(rest).path))):
        return _repository(page["repo"], page["file"] or "", page["revision"])
    repo, _, file = rest.rstrip("/").partition(":")
    if _REPO.fullmatch(repo):
        return _repository(repo, file)
    if hub:
        raise GpustackError(f"{text} does not name a repository: write hf.co/ORGANISATION/REPOSITORY[:TAG]")
    if "://" in text:
        raise GpustackError(
            f"Models are not fetched from {text}: name a repository of Hugging Face, or download the file and give "
            "its path"
        )
    return None


def _is_address(text: str) -> bool:
    return any(place.match(text) for place in (_HUB, _OLLAMA, _MODEL_SCOPE))


def _path(text: str, cwd: Path) -> ModelReference:
    path = Path(text).expanduser()
    absolute = path if path.is_absolute() else Path(cwd, path).resolve()
    is_absent = not absolute.exists()
    if is_absent and not Path(text).is_absolute():
        raise NotFound(f"There is no {absolute}; a path must lead to a GGUF file or a folder of a model")
    name = _SPLIT.sub("", absolute.stem if absolute.suffix.lower() == ".gguf" else absolute.name)
    return ModelReference(
        name=name, fields={"source": "local_path", "local_path": str(absolute)}, is_absent=is_absent
    )


def _library(text: str, model: str) -> ModelReference:
    if not _LIBRARY.fullmatch(model):
        raise GpustackError(f"{text} does not name a model of the Ollama library: write ollama:NAME[:TAG]")
    fields = {"source": "ollama_library", "ollama_library_model_name": model}
    return ModelReference(name=model.rpartition("/")[2].replace(":", "-"), fields=fields)


def _model_scope(text: str, rest: str) -> ModelReference:
    """A repository of ModelScope; the address of a page of it will do."""
    page = _MODEL_SCOPE_PAGE.fullmatch(unquote(urlsplit(rest).path if "://" in text else rest))
    if page is None:
        raise GpustackError(f"{text} does not name a repository: write ms:ORGANISATION/REPOSITORY[:TAG]")
    found = _repository(page["repo"], page["tag"] or page["file"] or "")
    fields = {"source": "model_scope", "model_scope_model_id": page["repo"]}
    if (page["revision"] or "master") != "master":
        fields["revision"] = page["revision"]
    return attrs.evolve(found, fields=fields)


def _repository(repo: str, file: str, revision: str = "main") -> ModelReference:
    """A repository of the hub. ``latest`` as a file names none, as other programs write it."""
    own = repo.split("/")[1]
    file = "" if file.lower() == "latest" else file
    name = own[:-5] if own.lower().endswith("-gguf") else own
    fields = {"source": "huggingface", "huggingface_repo_id": repo}
    if revision != "main":
        fields["revision"] = revision
    return ModelReference(name=name, fields=fields, repo=repo, file=file)

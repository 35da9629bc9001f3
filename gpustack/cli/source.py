"""What ``gpustack run`` is asked to run: a path or a repository of Hugging Face, as fields of a deployment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import attrs

from gpustack.errors import GpustackError

DEFAULT_TAG = "Q4_K_M"
"""The quantisation taken from a GGUF repository when none is named: small, and near to the original."""

_HUB = re.compile(r"(?:https?://)?(?:hf\.co|huggingface\.co)/|hf:")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_PLACES = ("./", "../", "~", "/")


@attrs.frozen(kw_only=True)
class Asked:
    """A source: the ``fields`` of a deployment, the ``name`` it suggests, and what to tell of it."""

    name: str
    fields: Mapping[str, str]
    remark: str = ""


def read_source(text: str, cwd: Path) -> Asked | None:
    """The source that ``text`` is; ``None`` when it can only be the name of a deployment.

    What is on disk, or begins like a path, is a path; it becomes absolute. Raises GpustackError for a path that
    leads nowhere and would not mean the same elsewhere.
    """
    if text.startswith(_PLACES) or (not _HUB.match(text) and (cwd / text).exists()):
        return _path(text, cwd)
    hub = _HUB.match(text)
    repo, _, file = text[hub.end() if hub else 0 :].partition(":")
    if _REPO.fullmatch(repo):
        return _repository(repo, file)
    if hub:
        raise GpustackError(f"{text} does not name a repository: write hf.co/ORGANISATION/REPOSITORY[:TAG]")
    return None


def _path(text: str, cwd: Path) -> Asked:
    path = Path(text).expanduser()
    absolute = Path(cwd, path).resolve() if not path.is_absolute() else path
    remark = ""
    if not absolute.exists():
        if not path.is_absolute():
            raise GpustackError(
                f"There is no {absolute}; a path must lead to a GGUF file or a folder of a model"
            )
        remark = f"{absolute} is not on this machine; a worker must have it."
    name = _SPLIT.sub("", absolute.stem if absolute.suffix == ".gguf" else absolute.name)
    return Asked(name=name, fields={"source": "local_path", "local_path": str(absolute)}, remark=remark)


def _repository(repo: str, file: str) -> Asked:
    own = repo.split("/")[1]
    name = own[:-5] if own.lower().endswith("-gguf") else own
    fields = {"source": "huggingface", "huggingface_repo_id": repo}
    if not file and "gguf" not in own.lower():
        return Asked(name=name, fields=fields)
    remark = "" if file else f"Taking {DEFAULT_TAG}; another one is had by {repo}:TAG."
    tag = file or DEFAULT_TAG
    pattern = tag if "*" in tag or tag.lower().endswith(".gguf") else f"*{tag}*.gguf"
    return Asked(name=name, fields={**fields, "huggingface_filename": pattern}, remark=remark)

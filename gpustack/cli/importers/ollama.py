"""Reads Ollama over its API: which models it has, and with which parameters."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from gpustack.cli.imported import Doc, Imported, ImportFault, of_others
from gpustack.cli.repository import DEFAULT_TAG, pattern_for
from gpustack.remote.http import HttpClient
from gpustack.text import printable

_WITHIN = 30.0
_LARGEST = 4 << 20
_MOST_TAGS = 1000

_FLAGS: Mapping[str, str] = {
    "num_ctx": "--ctx-size",
    "num_gpu": "--gpu-layers",
    "num_batch": "--batch-size",
    "num_thread": "--threads",
    "num_keep": "--keep",
    "num_predict": "--predict",
    "temperature": "--temp",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "min_p": "--min-p",
    "typical_p": "--typical",
    "repeat_last_n": "--repeat-last-n",
    "repeat_penalty": "--repeat-penalty",
    "presence_penalty": "--presence-penalty",
    "frequency_penalty": "--frequency-penalty",
    "seed": "--seed",
}
"""Parameters of a Modelfile, and the options of llama.cpp that mean the same."""
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
HUB = re.compile(r"(?:hf\.co|huggingface\.co)/([^/:]+/[^/:]+)(?::(.+))?")
"""How Ollama names a model of Hugging Face: the repository, and the quantization."""
_ELSEWHERE = "it runs at another company, not on your machine"
_ON_DEMAND = "replicas: 0, since Ollama loads a model when it is asked for: gpustack scale starts it here"


async def read_ollama(client: HttpClient, url: str, version: str) -> Imported:
    """Its models. Raises GpustackError where it does not answer as documented."""
    made = Imported(f"Ollama {printable(version, 40)} at {url}")
    answer = await client.request("GET", "/api/tags", limit=_LARGEST, deadline=_WITHIN)
    document = of_others(answer.json(), "/api/tags")
    tags = document.get("models") if isinstance(document, dict) else None
    if not isinstance(tags, list):
        raise ImportFault(f"{url}/api/tags answered something that is no list of Ollama's models")
    for tag in tags[:_MOST_TAGS]:
        if isinstance(tag, dict) and isinstance(tag.get("name"), str):
            await _add(made, client, tag)
    return made


async def _add(made: Imported, client: HttpClient, tag: Doc) -> None:
    name = tag["name"]
    if tag.get("remote_host") or tag.get("remote_model"):
        made.leave(f"Model/{name}", _ELSEWHERE)
        return
    answer = await client.request("POST", "/api/show", json={"model": name}, limit=_LARGEST, deadline=_WITHIN)
    found = of_others(answer.json(), f"/api/show of {name}") if answer.status == 200 else None
    if not isinstance(found, dict):
        wrong = "something that tells of no model" if answer.status == 200 else str(answer.status)
        made.leave(f"Model/{name}", f"/api/show answered {wrong}")
        return
    if found.get("remote_host") or found.get("remote_model"):
        made.leave(f"Model/{name}", _ELSEWHERE)
        return
    said = found.get("details")
    details: Doc = said if isinstance(said, dict) else {}
    remarks = [_ON_DEMAND]
    capabilities = found.get("capabilities")
    document: Doc = {
        "name": name.removesuffix(":latest"),
        "replicas": 0,
        **_source(name, details, remarks),
        "backend_parameters": _parameters(str(found.get("parameters") or ""), remarks),
    }
    if isinstance(capabilities, list) and "embedding" in capabilities and "completion" not in capabilities:
        document["categories"] = ["embedding"]
    for field in ("system", "messages"):
        if found.get(field):
            remarks.append(f"{field}: not carried over: clients send it with each request here")
    if details.get("format") not in (None, "", "gguf"):
        made.leave(
            f"Model/{name}",
            f"its format is {str(details['format'])!r}, and only GGUF files of Ollama are run here",
        )
        return
    if str(details.get("parent_model")).startswith("/"):
        why = "it was made of a file on that machine: ollama show --modelfile names it, deploy it by its path"
        made.leave(f"Model/{name}", why)
        return
    made.add_model(document, remarks)


def _source(name: str, details: Mapping[str, Any], remarks: list[str]) -> Doc:
    hub = HUB.fullmatch(name)
    if hub is not None:
        quant = hub[2] if hub[2] and hub[2] != "latest" else DEFAULT_TAG
        file = pattern_for(quant)
        return {"source": "huggingface", "huggingface_repo_id": hub[1], "huggingface_filename": file}
    parent = details.get("parent_model")
    if isinstance(parent, str) and parent:
        remarks.append(
            f"it was made of {parent} with ollama create: its own template and adapters are not carried over"
        )
        return {"source": "ollama_library", "ollama_library_model_name": parent}
    remarks.append("fetched from the Ollama library; one that was made with ollama create is not there")
    return {"source": "ollama_library", "ollama_library_model_name": name}


def _parameters(text: str, remarks: list[str]) -> list[str]:
    """Of the lines ``name value`` those that llama.cpp has an option for."""
    found: list[str] = []
    lost: list[str] = []
    for line in text.splitlines()[:200]:
        name, _, value = line.strip().partition(" ")
        value = _unquoted(value.strip())
        if name in _FLAGS and _NUMBER.fullmatch(value):
            found.append(f"{_FLAGS[name]}={value}")
        elif name == "use_mmap" and value == "false":
            found.append("--no-mmap")
        elif name and name not in lost:
            lost.append(name)
    if lost:
        remarks.append(
            f"parameters not carried over: {', '.join(lost)}: clients may send them with a request"
        )
    return found


def _unquoted(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value

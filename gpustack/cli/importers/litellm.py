"""Reads LiteLLM's config.yaml: what it calls at Ollama and at vLLM can run here, what it calls at providers cannot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gpustack.cli.imported import Doc, Imported
from gpustack.cli.repository import DEFAULT_TAG, pattern_for
from gpustack.text import printable

from .ollama import HUB

_OLLAMA = ("ollama/", "ollama_chat/")
_VLLM = "hosted_vllm/"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LIMITS: Mapping[str, str] = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "max_parallel_requests": "concurrent_requests",
}
_SETTINGS: Mapping[str, str] = {
    "general_settings": "make keys anew with gpustack keys, and choose options with gpustack config",
    "router_settings": "requests go to the replica that has the least to do",
    "litellm_settings": "limits and budgets stand on models, users and keys: docs/limits.md",
    "environment_variables": "they are for LiteLLM itself",
    "credential_list": "credentials of others are not needed here",
    "guardrails": "requests reach the engine as clients send them",
    "mcp_servers": "tools are called by clients",
}


def is_litellm(document: Any) -> bool:
    """Whether a document looks like its configuration."""
    return isinstance(document, dict) and isinstance(document.get("model_list"), list)


def read_litellm(document: Mapping[str, Any], place: str) -> Imported:
    """Its models. Of several deployments under one name the first is taken."""
    made = Imported(f"LiteLLM's {place}")
    for key, why in _SETTINGS.items():
        if document.get(key):
            made.leave(key, why)
    seen: set[str] = set()
    for entry in document["model_list"]:
        name = str(entry.get("model_name")) if isinstance(entry, dict) else str(entry)
        parameters = entry.get("litellm_params") if isinstance(entry, dict) else None
        if not isinstance(parameters, dict) or not isinstance(parameters.get("model"), str):
            made.leave(f"Model/{name}", "it has no model in litellm_params")
            continue
        if name in seen:
            why = "its requests are spread over several deployments there; here gpustack scale adds replicas"
            made.leave(f"Model/{name}", why)
            continue
        remarks: list[str] = []
        source = _source(parameters, remarks)
        if isinstance(source, str):
            made.leave(f"Model/{name}", source)
            continue
        seen.add(name)
        info = entry.get("model_info")
        if isinstance(info, dict) and info.get("mode") == "embedding":
            source["categories"] = ["embedding"]
        limits = {
            ours: value
            for theirs, ours in _LIMITS.items()
            if isinstance(value := parameters.get(theirs), int) and not isinstance(value, bool) and value > 0
        }
        made.add_model({"name": name, "replicas": 1, **source, "limits": limits or None}, remarks)
    return made


def _source(parameters: Mapping[str, Any], remarks: list[str]) -> Doc | str:
    """Where the model comes from; a sentence where it cannot run here."""
    model, base = parameters["model"], parameters.get("api_base")
    provider, _, called = model.partition("/")
    at = printable(base, 200) if isinstance(base, str) else ""
    if model.startswith(_OLLAMA):
        if "*" in called:
            return "it stands for all models of Ollama: gpustack import --from-url reads those"
        hub = HUB.fullmatch(called)
        if hub is None:
            return {"source": "ollama_library", "ollama_library_model_name": called}
        file = pattern_for(hub[2] if hub[2] and hub[2] != "latest" else DEFAULT_TAG)
        return {"source": "huggingface", "huggingface_repo_id": hub[1], "huggingface_filename": file}
    if model.startswith(_VLLM) and _REPOSITORY.fullmatch(called):
        remarks.append(f"the options of the vLLM at {at or 'its address'} are not known here: add them")
        return {"source": "huggingface", "huggingface_repo_id": called, "backend": "vllm"}
    if at and provider in ("openai", "custom_openai", "hosted_vllm", "lm_studio", "llamafile", "xinference"):
        return f"it is called at {at}, and what that server runs is not told here: deploy it by its source"
    return f"{provider if called else 'a provider'} serves it: models of others are not routed here"

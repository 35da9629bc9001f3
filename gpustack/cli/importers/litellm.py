"""Reads LiteLLM's config.yaml: what it calls at Ollama can run here, what it calls at providers cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpustack.cli.imported import Imported

_OLLAMA = ("ollama/", "ollama_chat/")
_SETTINGS: Mapping[str, str] = {
    "general_settings": "make keys anew with gpustack keys, and choose options with gpustack config",
    "router_settings": "requests go to the replica that has the least to do",
    "litellm_settings": "limits and budgets stand on models, users and keys: docs/limits.md",
}


def is_litellm(document: Any) -> bool:
    """Whether a document looks like its configuration."""
    return isinstance(document, dict) and isinstance(document.get("model_list"), list)


def read_litellm(document: Mapping[str, Any], place: str) -> Imported:
    """Its models."""
    made = Imported(f"LiteLLM's {place}")
    for key, why in _SETTINGS.items():
        if document.get(key):
            made.leave(key, why)
    for entry in document["model_list"]:
        name = str(entry.get("model_name")) if isinstance(entry, dict) else str(entry)
        parameters = entry.get("litellm_params") if isinstance(entry, dict) else None
        model = str(parameters.get("model") or "") if isinstance(parameters, dict) else ""
        prefix = next((one for one in _OLLAMA if model.startswith(one)), None)
        if prefix is None:
            provider = model.partition("/")[0] or "somebody else"
            made.leave(f"Model/{name}", f"{provider} serves it: models of others are not routed here")
            continue
        library = {"source": "ollama_library", "ollama_library_model_name": model.removeprefix(prefix)}
        made.add_model({"name": name, "replicas": 1, **library}, [])
    return made

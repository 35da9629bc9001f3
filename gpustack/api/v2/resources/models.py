"""Deployments, as GPUStack 2.x writes and shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.engines.registry import folded

from ...resources import models
from ...route import ApiCall, ApiResponse, ApiRoute
from ...wire import MODEL
from ..cluster import IN_CLUSTER
from ..face import Face
from ..translation import Difference, Doc, Reading, Translation

_SPELLINGS: Mapping[str, str] = {
    "vllm": "vLLM",
    "vox-box": "VoxBox",
    "ascend-mindie": "MindIE",
    "sglang": "SGLang",
    "custom": "Custom",
    "llama-box": "llama.cpp",
}
"""Our names of backends, and theirs. Others, such as those that administrators added, are the same in both."""
_OURS = {folded(theirs): ours for ours, theirs in _SPELLINGS.items()}
PLACEHOLDERS = {"{{port}}": "{port}", "{{model_path}}": "{model_path}", "{{model_name}}": "{served_name}"}
"""What the worker fills into a command, as they write it and as we do."""


def _backend(value: Any, reading: Reading) -> Doc:
    return {"backend": _OURS.get(folded(value), value) if isinstance(value, str) else value}


def _shown_backend(document: Doc, snapshot: Snapshot) -> Any:
    given = document.get("backend")
    return _SPELLINGS.get(given, given) if isinstance(given, str) else given


def command_from(value: Any) -> Any:
    """A command of theirs as ours is written; what is no text is left to be refused."""
    if not isinstance(value, str):
        return value
    for theirs, ours in PLACEHOLDERS.items():
        value = value.replace(theirs, ours)
    return value or None


def command_shown(value: Any) -> Any:
    """The other way round."""
    if isinstance(value, str):
        for theirs, ours in PLACEHOLDERS.items():
            value = value.replace(ours, theirs)
    return value


def _selector(value: Any, reading: Reading) -> Doc:
    if isinstance(value, dict):
        for name in value.keys() - {"gpu_ids"}:
            if value[name]:
                reading.ignore(f"gpu_selector.{name}")
        value = {"gpu_ids": value.get("gpu_ids")} if value.get("gpu_ids") else None
    return {"gpu_selector": value}


def _route(value: Any, reading: Reading) -> Doc:
    if value is False:  # every model has its route here
        reading.ignore("enable_model_route")
    return {}


_POLICIES = {"allowed_principals": "allowed_users", "org": "authed"}
"""What their policies of access are here, where there are accounts and one organization."""


def policy_from(value: Any) -> Any:
    """A policy of access of theirs, as ours is called."""
    return _POLICIES.get(value, value) if isinstance(value, str) else value


_REPOSITORIES = {
    "huggingface": "huggingface_repo_id",
    "model_scope": "model_scope_model_id",
    "local_path": "local_path",
}
_FILES = ("huggingface_filename", "model_scope_file_path", "local_path")


def _adapters(value: Any, reading: Reading) -> Doc:
    """``lora_list``: names may begin with the model's, and one field has the repository of any source."""
    if not isinstance(value, list):
        return {"lora_adapters": value}
    return {"lora_adapters": [_adapter(one) if isinstance(one, dict) else one for one in value]}


def _adapter(given: Mapping[str, Any]) -> Doc:
    source = given.get("source") or "huggingface"
    made = {name: given[name] for name in _FILES if given.get(name)}
    field = _REPOSITORIES.get(str(source))
    if field is not None and given.get("lora_repo_name"):
        made.setdefault(field, given["lora_repo_name"])
    name = given.get("lora_name")
    return {"name": name.rpartition(":")[2] if isinstance(name, str) else name, "source": source, **made}


def _shown_adapters(document: Doc, snapshot: Snapshot) -> list[Doc]:
    shown = []
    for one in document.get("lora_adapters") or ():
        repository = one.get(_REPOSITORIES.get(str(one.get("source")), ""))
        files = {name: one.get(name) for name in _FILES}
        shown.append(
            {"lora_name": one["name"], "lora_repo_name": repository, "source": one.get("source"), **files}
        )
    return shown


def _instances(document: Doc, snapshot: Snapshot) -> list[ModelInstance]:
    return list(snapshot.instances_of(document.get("id", -1)))


def _state(document: Doc, snapshot: Snapshot) -> str:
    """One ready replica serves: that fewer than wanted are is among ``degradations``."""
    if document.get("ready_replicas"):
        return "running"
    failed = any(one.state is InstanceState.ERROR for one in _instances(document, snapshot))
    return "error" if failed else "pending"


def _state_message(document: Doc, snapshot: Snapshot) -> str | None:
    """Of the replica that fails, else of the first that is not ready and says why."""
    waiting = [one for one in _instances(document, snapshot) if one.state is not InstanceState.RUNNING]
    waiting.sort(key=lambda one: (one.state is not InstanceState.ERROR, one.id))
    return next((one.state_message for one in waiting if one.state_message), None)


def _degradations(document: Doc, snapshot: Snapshot) -> list[str]:
    ready = document.get("ready_replicas") or 0
    return ["ratio_unmet"] if 0 < ready < (document.get("replicas") or 0) else []


TRANSLATION = Translation(
    differences=(
        IN_CLUSTER,
        Difference("backend", _backend, _shown_backend),
        Difference(
            "run_command",
            lambda value, reading: {"command": command_from(value)},
            lambda document, snapshot: command_shown(document.get("command")),
        ),
        Difference("gpu_selector", _selector),
        Difference("enable_model_route", _route),
        Difference("access_policy", lambda value, reading: {"access_policy": policy_from(value)}),
        Difference("lora_list", _adapters, _shown_adapters),
        Difference("state", shows=_state),
        Difference("state_message", shows=_state_message),
        Difference("degradations", shows=_degradations),
    ),
    owned=frozenset(
        {
            "meta",
            "generation",
            "backend_spec",
            "ready_replicas",
            "distributable",
            "role_status",
            "stale",
            "degradations",
        }
    ),
)
"""Fields with no row, and none of ours of that name, are named as ignored."""

FACES = (Face(path="/v1/models", translation=TRANSLATION, views=("Model", "ModelSummary")),)


async def _read(call: ApiCall) -> ApiResponse:
    item: Model = models.RESOURCE.item(call)
    return models.RESOURCE.respond(call, item)


ROUTES = (
    ApiRoute(
        method="GET",
        path="/v2/models/{id}",
        summary="Read a model by its number",
        handler=_read,
        allow=models.RESOURCE.list_by,
        scopes=models.RESOURCE.list_scopes,
        answer=MODEL,
    ),
)

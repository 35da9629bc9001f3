"""Finds or makes the deployment that ``gpustack run`` is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from gpustack.cli.command_line import nearest
from gpustack.cli.local import is_local
from gpustack.cli.lookup import MODELS, WORKERS, find, model_named, model_with_adapter
from gpustack.cli.repository import source_fields
from gpustack.cli.session import Doc
from gpustack.cli.source import ModelReference, read_source
from gpustack.cli.terminal import Terminal
from gpustack.errors import AlreadyExists, Conflict, GpustackError, NotFound
from gpustack.remote.admin_client import AdminClient

_GGUF_BACKEND = "llama-box"
_OPTIONS = {
    "backend": "--backend",
    "command": "--command",
    "backend_parameters": "--param (or --cpu)",
    "env": "--env",
    "gpu_selector": "--gpu",
    "worker_selector": "--selector",
    "access_policy": "--access",
    "lora_adapters": "--lora",
}
"""The option that sets each field of a new deployment."""


@attrs.frozen
class Deployment:
    """A model as deployed now; ``is_new`` when it was made for this call."""

    model: Doc
    is_new: bool = False


async def find_or_deploy(
    client: AdminClient, text: str, name: str | None, fields: Mapping[str, Any], aside: Terminal
) -> Deployment:
    """The deployment that ``text`` means, made or started if need be.

    ``fields`` are those of a new deployment that the command line sets, ``name`` the one it chooses. Raises NotFound
    for what cannot be had, and Conflict where what is deployed already is not what is asked for.
    """
    model = await find(client, MODELS, text) if text.strip() else None
    if model is None:
        asked = read_source(text, Path.cwd())
        if asked is None:
            raise await _unknown(client, text)
        chosen = name or asked.name
        if not chosen:
            raise GpustackError(f"{text} suggests no name: choose one with --name")
        model = await find(client, MODELS, chosen)
        if model is None:
            return await _create(client, {"name": chosen, **fields}, asked, aside)
        await _same_source(client, model, asked)
    elif name not in (None, model["name"]):
        raise Conflict(f"{model['name']} is deployed already; --name is for a new deployment")
    refuse_other_fields(model, fields)
    changes = _adjusted(model, fields, aside)
    if not changes:
        return Deployment(model)
    await client.update(f"{MODELS}/{model['id']}", changes)
    return Deployment(await model_named(client, str(model["name"])))


def _adjusted(model: Doc, fields: Mapping[str, Any], aside: Terminal) -> Doc:
    """What changes of a deployment without new instances of it, each told: replicas, of which one at least is wanted,
    and priority."""
    wanted = {
        "replicas": fields.get("replicas") or max(1, int(model.get("replicas") or 0)),
        "priority": fields.get("priority", model.get("priority") or 0),
        "preempts": fields.get("preempts", model.get("preempts") or False),
    }
    changes = {name: value for name, value in wanted.items() if value != (model.get(name) or 0)}
    if "replicas" in changes:
        aside.say(
            f"{model['name']} goes from {model.get('replicas') or 0} to {changes['replicas']} replicas."
        )
    if "priority" in changes:
        aside.say(
            f"{model['name']} goes from priority {model.get('priority') or 0} to {changes['priority']}."
        )
    if "preempts" in changes:
        aside.say(f"{model['name']} may have instances of models of lower priority end from now on.")
    return changes


async def _unknown(client: AdminClient, text: str) -> NotFound:
    if (adapted := await model_with_adapter(client, text)) is not None:
        return NotFound(f"{text} is an adapter of {adapted['name']}: talk with it by gpustack chat {text}")
    names = [str(model.get("name")) for model in await client.all(MODELS)]
    known = f"; deployed are {', '.join(sorted(names))}" if names else ""
    by_lower = {name.lower(): name for name in names}
    if meant := nearest(text.lower(), by_lower):
        return NotFound(f"There is no model {text!r} here; did you mean {by_lower[meant]}?")
    return NotFound(
        f"There is no model {text!r} here{known}. To deploy one give a path (./model.gguf), a repository of Hugging "
        "Face (ORGANISATION/REPOSITORY:TAG) or ModelScope (ms:ORGANISATION/REPOSITORY:TAG) or a model of the Ollama "
        "library (ollama:NAME:TAG)"
    )


async def _same_source(client: AdminClient, model: Doc, asked: ModelReference) -> None:
    """Raise AlreadyExists unless the model has the source that is asked for; without a file named, any file will do."""
    fields = asked.fields
    if asked.file and asked.repo in (model.get("huggingface_repo_id"), model.get("model_scope_model_id")):
        fields, _ = await source_fields(client, asked)
    if any(model.get(field) != value for field, value in fields.items()):
        from gpustack.cli.phrase import source

        raise AlreadyExists(
            f"The name {model['name']} is taken by another model ({source(model)}): choose another with --name"
        )


def refuse_other_fields(model: Doc, fields: Mapping[str, Any]) -> None:
    """Raise Conflict when the command line sets fields of a new deployment that differ from what is deployed."""
    for field, option in _OPTIONS.items():
        if field in fields and model.get(field) != fields[field]:
            raise Conflict(
                f"{model['name']} is deployed already, and {option} is for a new deployment: remove it first with "
                f"gpustack rm {model['name']}, or deploy another with --name"
            )


async def _create(
    client: AdminClient, fields: Mapping[str, Any], asked: ModelReference, aside: Terminal
) -> Deployment:
    if asked.is_absent:
        await _refuse_if_all_is_here(client, asked)
        aside.say(f"{asked.fields['local_path']} is not on this machine; a worker must have it.")
    aside.draw(f"looking at {asked.repo or asked.name}")
    try:
        source, remark = await source_fields(client, asked)
    finally:
        aside.clear()
    if remark:
        aside.say(remark)
    backend = {"backend": _GGUF_BACKEND} if is_known_gguf(source) else {}
    model = await client.create(MODELS, {**source, **backend, **fields})
    return Deployment(model, is_new=True)


def is_known_gguf(source: Mapping[str, str]) -> bool:
    """Whether a source is known to be GGUF, for which the engine is fixed; a folder of another machine is unknown."""
    if source["source"] == "ollama_library":
        return True
    name = (
        source.get("huggingface_filename")
        or source.get("model_scope_file_path")
        or source.get("local_path")
        or ""
    )
    return name.lower().endswith(".gguf") or (
        "local_path" in source and any(Path(name).glob("*.[gG][gG][uU][fF]"))
    )


async def _refuse_if_all_is_here(client: AdminClient, asked: ModelReference) -> None:
    """Raise NotFound for a path that is not on this machine if all workers are on this machine."""
    workers = await client.all(WORKERS)
    if workers and all(is_local(str(worker.get("ip"))) for worker in workers):
        path = asked.fields["local_path"]
        raise NotFound(f"There is no {path}; a path must lead to a GGUF file or a folder of a model")

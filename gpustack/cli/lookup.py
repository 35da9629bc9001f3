"""Finds what a person names: a model, an instance or a worker, by its name or number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpustack.cli.nearest import nearest
from gpustack.errors import NotFound
from gpustack.remote.admin_client import AdminClient

Doc = dict[str, Any]

MODELS, INSTANCES, WORKERS = "/v1/models", "/v1/model-instances", "/v1/workers"
SERVERS, FILES = "/v1/servers", "/v1/model-files"
KEYS, USERS = "/v1/api-keys", "/v1/users"


async def find(client: AdminClient, path: str, name: str) -> Doc | None:
    """The object of a list with this name, else the one with this number."""
    named = [item for item in await client.all(path, search=name) if item.get("name") == name]
    if named:
        return named[0]
    if name.isascii() and name.isdigit():
        try:
            return await client.get(f"{path}/{int(name)}")
        except NotFound:
            return None
    return None


async def model_named(client: AdminClient, name: str) -> Doc:
    """The model; raises NotFound with what there is."""
    found = await find(client, MODELS, name)
    if found is None:
        raise NotFound(await _missing(client, "model", MODELS, name))
    return found


async def key_named(client: AdminClient, name: str) -> Doc:
    """One's own API key; raises NotFound."""
    return await _named(client, KEYS, name, "API key", "keys", field="name")


async def user_named(client: AdminClient, name: str) -> Doc:
    """The account; raises NotFound."""
    return await _named(client, USERS, name, "user", "users", field="username")


async def _named(client: AdminClient, path: str, name: str, kind: str, command: str, *, field: str) -> Doc:
    """By its name, else by its number: some are only in lists."""
    every = await client.all(path)
    found = [item for item in every if item.get(field) == name] or [
        item for item in every if str(item.get("id")) == name
    ]
    if not found:
        close = nearest(name, [str(item.get(field)) for item in every])
        guess = f"did you mean {close}?" if close else f"gpustack {command} lists them"
        raise NotFound(f"There is no {kind} {name!r}; {guess}")
    return found[0]


async def instances_of(client: AdminClient, model: Doc) -> list[Doc]:
    """The instances of a model that are not on their way out, the oldest first."""
    found = await client.all(INSTANCES, model_id=model["id"])
    return sorted((item for item in found if not item.get("deleted_at")), key=lambda item: int(item["id"]))


async def instances_named(client: AdminClient, name: str) -> list[Doc]:
    """The instance of this name, else all of the model of this name; raises NotFound when there is neither."""
    instance = await find(client, INSTANCES, name)
    if instance is not None:
        return [instance]
    model = await find(client, MODELS, name)
    if model is None:
        raise NotFound(await _missing(client, "instance or model", INSTANCES, name, MODELS))
    found = await instances_of(client, model)
    if not found:
        wanted = model.get("replicas") or 0
        why = (
            f"it is stopped; gpustack run {model['name']} starts it"
            if wanted == 0
            else "none has been made yet"
        )
        raise NotFound(f"Model {model['name']} has no instances: {why}")
    return found


async def workers_named(client: AdminClient, names: Sequence[str]) -> list[Doc]:
    """The workers in the order of their names; raises NotFound for the first that is none."""
    found = []
    for name in names:
        worker = await find(client, WORKERS, name)
        if worker is None:
            raise NotFound(f"There is no worker {name!r}; gpustack workers shows them")
        found.append(worker)
    return found


async def _missing(client: AdminClient, kind: str, path: str, name: str, *more: str) -> str:
    names = [str(item.get("name")) for one in (path, *more) for item in await client.all(one)]
    if not names:
        return f"There is no {kind} {name!r}: nothing is deployed yet; gpustack run MODEL deploys one"
    if close := nearest(name, names):
        return f"There is no {kind} {name!r}; did you mean {close}?"
    return f"There is no {kind} {name!r}; gpustack ls shows the models, gpustack ps the instances"

"""Finds the documents that people name: models, instances, workers, keys and accounts, by name or number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from gpustack.cli.command_line import suggestion
from gpustack.cli.session import Doc
from gpustack.errors import Conflict, NotFound
from gpustack.remote.admin_client import AdminClient

MODELS, INSTANCES, WORKERS = "/v1/models", "/v1/model-instances", "/v1/workers"
SERVERS, FILES, GPUS = "/v1/servers", "/v1/model-files", "/v1/gpu-devices"
KEYS, USERS = "/v1/api-keys", "/v1/users"
BACKENDS = "/v1/inference-backends"
SURVIVAL, RATES = "/v1/survival", "/v1/model-rates"


async def find(client: AdminClient, path: str, name: str) -> Doc | None:
    """The document of the list at ``path`` with this name, else the one with this number, else ``None``."""
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
    """The model of this name or number; raises NotFound with what there is."""
    found = await find(client, MODELS, name)
    if found is None:
        raise NotFound(await _missing(client, "model", MODELS, name))
    return found


async def rates_of(client: AdminClient) -> dict[Any, Doc]:
    """How fast each model is, by its id; empty where the server is too old to say."""
    try:
        items = (await client.get(RATES)).get("items") or ()
    except NotFound:
        return {}
    return {
        one.get("model_id"): {key: value for key, value in one.items() if key != "model_id"} for one in items
    }


async def answering(client: AdminClient, name: str) -> Doc:
    """The model that answers to a name: of this name or number, or with this adapter (``<model>:<adapter>``).

    With an adapter its ``name`` is that one. Raises NotFound with what there is.
    """
    adapted = await model_with_adapter(client, name)
    return {**adapted, "name": name} if adapted else await model_named(client, name)


async def model_with_adapter(client: AdminClient, name: str) -> Doc | None:
    """The model that ``<model>:<adapter>`` means; ``None`` where a model has that very name, or no adapter has."""
    base, colon, adapter = name.rpartition(":")
    if not colon or not base or await find(client, MODELS, name) is not None:
        return None
    model = await find(client, MODELS, base)
    adapters = () if model is None else model.get("lora_adapters") or ()
    return model if adapter in [one.get("name") for one in adapters] else None


async def key_named(client: AdminClient, name: str) -> Doc:
    """The API key of this name or number, among one's own; raises NotFound."""
    return await _named(client, KEYS, name, "API key", "keys", field="name")


async def user_named(client: AdminClient, name: str) -> Doc:
    """The account of this name or number; raises NotFound."""
    return await _named(client, USERS, name, "user", "users", field="username")


async def backend_named(client: AdminClient, name: str) -> Doc:
    """The administrators' backend of this name or number; raises NotFound."""
    return await _named(client, BACKENDS, name, "backend", "backends", field="name")


async def _named(client: AdminClient, path: str, name: str, kind: str, command: str, *, field: str) -> Doc:
    """Found in the whole list: these documents cannot be asked for one by one, or searched by name."""
    every = await client.all(path)
    found = [item for item in every if item.get(field) == name] or [
        item for item in every if str(item.get("id")) == name
    ]
    if not found:
        guess = suggestion(name, [str(item.get(field)) for item in every], f"gpustack {command} lists them")
        raise NotFound(f"There is no {kind} {name!r}; {guess}")
    return found[0]


async def instances_of(client: AdminClient, model: Doc) -> list[Doc]:
    """The instances of a model that are not being removed, the oldest first."""
    found = await client.all(INSTANCES, model_id=model["id"])
    return sorted((item for item in found if not item.get("deleted_at")), key=lambda item: int(item["id"]))


def members_of(instance: Doc) -> tuple[Doc, ...]:
    """An instance, and the parts of it on other workers: each with its worker and the numbers of its GPUs there."""
    return (instance, *((instance.get("distributed_servers") or {}).get("subordinate_workers") or ()))


async def instances_named(client: AdminClient, name: str) -> list[Doc]:
    """The instance of this name, else all instances of the model of this name; raises NotFound."""
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
    """The workers of these names, in this order; raises NotFound for the first name that is unknown."""
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
    guess = suggestion(name, names, "gpustack ls shows the models, gpustack ps the instances")
    return f"There is no {kind} {name!r}; {guess}"


KINDS = {"model": MODELS, "instance": INSTANCES, "worker": WORKERS, "file": FILES}
"""The kinds of objects that a command line may name, as ``KIND/NAME``, with the lists that they are in."""


@attrs.frozen
class NamedObject:
    """One that a command line names."""

    kind: str
    name: str
    document: Doc

    @property
    def api_kind(self) -> str:
        """As the server's events call it."""
        return {"instance": "model-instance", "file": "model-file"}.get(self.kind, self.kind)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


async def objects_named(client: AdminClient, text: str) -> list[NamedObject]:
    """All that ``text`` may mean: ``KIND/NAME``, or the name of a model, instance or worker; numbers of files only
    behind their kind."""
    found = [
        NamedObject(kind, text, one)
        for kind in ("model", "instance", "worker")
        if (one := await find(client, KINDS[kind], text)) is not None
    ]
    kind, slash, name = text.partition("/")
    if found or not slash or kind not in KINDS:
        return found
    one = await find(client, KINDS[kind], name)
    return [NamedObject(kind, name, one)] if one is not None else []


async def object_named(client: AdminClient, text: str) -> NamedObject:
    """The one that ``text`` means. Raises NotFound where there is none, Conflict where there are several."""
    found = await objects_named(client, text)
    if not found:
        raise NotFound(
            f"There is no model, instance or worker {text!r}; gpustack ls, gpustack ps and gpustack workers list them"
        )
    if len(found) > 1:
        raise Conflict(f"{text} may be any of {', '.join(map(str, found))}: write which")
    return found[0]

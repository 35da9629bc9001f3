"""Engines that administrators describe as data: listed, added, changed and removed."""

from __future__ import annotations

from typing import Any

import attrs

from gpustack.domain.backend import BackendVersion, InferenceBackend
from gpustack.domain.model import Category
from gpustack.domain.snapshot import Snapshot
from gpustack.engines.backend import faults_of
from gpustack.metrics.mapping import faults_of_names
from gpustack.server import backend as backends

from ..listing import ListSelection
from ..problems import MalformedRequest
from ..resource import Resource
from ..route import ApiCall
from ..shape import Array, Boolean, Choice, Dictionary, Document, JsonShape, Nullable, Text
from ..wire import BACKEND

_ENV = Nullable(Dictionary(Text(longest=32768, secret=True)), {})
_VERSION = Document(
    name="BackendVersionBody",
    fields={"command": Text(longest=32768), "env": _ENV},
    required=("command",),
    note="command: words as a shell would split them, with placeholders such as {port}; no shell runs it.",
)
BACKEND_FIELDS: dict[str, JsonShape] = {
    "name": Text(shortest=1, longest=100),
    "description": Nullable(Text()),
    "versions": Dictionary(_VERSION),
    "default_version": Nullable(Text(longest=100)),
    "env": _ENV,
    "health_path": Nullable(Text(longest=2048)),
    "categories": Nullable(Array(Choice(Category)), ()),
    "metrics": Nullable(Dictionary(Text(longest=200)), {}),
    "install": Nullable(Text(longest=2000, one_line=True)),
}


def backend_fields(document: dict[str, Any]) -> dict[str, Any]:
    """The fields that a document sets, as the record has them."""
    fields = {name: document[name] for name in BACKEND_FIELDS if name in document}
    if "name" in fields:
        fields["name"] = fields["name"].strip()
    if "versions" in fields:
        fields["versions"] = {name: BackendVersion(**given) for name, given in fields["versions"].items()}
    if "categories" in fields:
        fields["categories"] = tuple(category.value for category in fields["categories"])
    if fields.get("default_version") is None:
        fields.pop("default_version", None)
        if len(fields.get("versions", ())) == 1:
            fields["default_version"] = next(iter(fields["versions"]))
    return fields


def refuse_wrong_backend(backend: InferenceBackend, snapshot: Snapshot) -> None:
    """Raise ``MalformedRequest`` with everything that is wrong."""
    faults = faults_of(backend, snapshot.backends.values())
    faults += faults_of_names(backend.metrics, "metrics")
    if faults:
        raise MalformedRequest(*faults)


async def _create(call: ApiCall) -> InferenceBackend:
    made = InferenceBackend(**{"default_version": "", **backend_fields(call.document)})
    refuse_wrong_backend(made, call.snapshot)
    return await backends.create_backend(call.context.store, made)


async def _update(call: ApiCall, backend: InferenceBackend) -> InferenceBackend:
    changes = backend_fields(call.document)
    refuse_wrong_backend(attrs.evolve(backend, **changes), call.snapshot)
    roll = bool(call.document.get("roll"))
    return await backends.update_backend(call.context.store, backend.id, changes, roll=roll)


async def _delete(call: ApiCall, backend: InferenceBackend) -> None:
    await backends.delete_backend(call.context.store, backend.id)


RESOURCE = Resource(
    path="/v1/inference-backends",
    name="Inference backend",
    record=InferenceBackend,
    view=BACKEND,
    selection=ListSelection(search=lambda backend: (backend.name, backend.description)),
    create_body=Document(
        name="InferenceBackendCreate",
        fields=BACKEND_FIELDS,
        required=("name", "versions"),
        note="Without default_version the only version is it.",
    ),
    create=_create,
    update_body=Document(
        name="InferenceBackendUpdate",
        fields={**BACKEND_FIELDS, "roll": Boolean()},
        note="Fields that are not sent stay. Deployments take a change over when their engines are replaced anyway; "
        "with roll they are replaced now, one replica at a time.",
    ),
    update=_update,
    delete=_delete,
)

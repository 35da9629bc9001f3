"""Deployments: the fields of the API, with accounts by name."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from gpustack.domain.access import User
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.server import deployment
from gpustack.store.transaction import Tx

from ..deployment import MODEL_FIELDS, SOURCE_BODY, changes_from, refuse_wrong
from ..manifest import ManifestKind
from ..problems import MalformedRequest
from ..shape import Array, Document, Nullable, Text
from ..view import Doc, RenderContext
from ..wire import MODEL

_FIELDS = {
    "name": MODEL_FIELDS["name"],
    **SOURCE_BODY,
    **MODEL_FIELDS,
    "allowed_users": Nullable(Array(Text(longest=255)), ()),
}


def _document(model: Model, context: RenderContext) -> Doc:
    shown = MODEL.of(model, context)
    users = {key: user.username for key, user in context.snapshot.users.items()}
    adapters = [
        {name: value for name, value in adapter.items() if value is not None}
        for adapter in shown["lora_adapters"]
    ]
    named = sorted(users[key] for key in shown["allowed_users"] if key in users)
    return {name: shown[name] for name in _FIELDS} | {"lora_adapters": adapters, "allowed_users": named}


def document_of(model: Model, snapshot: Snapshot) -> Doc:
    """A deployment as a complete document."""
    return _document(model, RenderContext(snapshot))


def _defaults() -> Doc:
    blank = Model(name="", source=ModelSource(kind=SourceKind.LOCAL_PATH))
    whole = document_of(blank, Snapshot())
    return {name: value for name, value in whole.items() if name not in ("name", "source")}


def _all(snapshot: Snapshot) -> dict[str, Doc]:
    context = RenderContext(snapshot)
    return {model.name: _document(model, context) for model in snapshot.models.values()}


def _write(tx: Tx, document: Doc, by: str) -> Model:
    changes = changes_from({**document, "allowed_users": _user_ids(tx, document["allowed_users"])})
    before = tx.find(Model, name=changes["name"])
    if before is None:
        made = Model(**changes)
        refuse_wrong(made, tx.snapshot)
        return deployment.add_model(tx, made, by=by)
    refuse_wrong(attrs.evolve(before, **changes), tx.snapshot)
    return deployment.change_model(tx, before, changes, by=by)


def _user_ids(tx: Tx, names: Sequence[str]) -> tuple[int, ...]:
    found: list[int] = []
    faults: list[str] = []
    for number, name in enumerate(names):
        user = tx.find(User, username=name)
        if user is None:
            faults.append(f"allowed_users[{number}]: there is no account {name!r}")
        else:
            found.append(user.id)
    if faults:
        raise MalformedRequest(*faults)
    return tuple(found)


_BODY = Document(name="ModelManifest", fields=_FIELDS, required=("name", "source"))


KIND = ManifestKind(
    name="Model",
    rank=1,
    body=_BODY,
    defaults=_defaults(),
    all=_all,
    write=_write,
)

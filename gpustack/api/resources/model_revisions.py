"""The revisions of a model: listed, and brought back."""

from __future__ import annotations

from typing import Any

import attrs

from gpustack.domain.model import SPEC_FIELDS, Model
from gpustack.domain.revision import ModelRevision
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import Conflict
from gpustack.server import deployment
from gpustack.server.revision import changes_to, chosen, revisions_of
from gpustack.store.transaction import Tx

from ..deployment import refuse_wrong
from ..manifest import FIELD_CHANGES, differences_shown
from ..manifest_kinds.model import document_of
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, Boolean, Document, Instant, Integer, Nullable, Text
from ..view import Doc
from . import models


async def _list(call: ApiCall) -> ApiResponse:
    model: Model = models.RESOURCE.item(call)
    found = await revisions_of(call.context.store, model.id)
    former: list[ModelRevision | None] = [*found[1:], *([None] if found else [])]
    items = [_document(one, before, call.snapshot) for one, before in zip(found, former, strict=True)]
    return ApiResponse(document={"items": items})


def _document(revision: ModelRevision, before: ModelRevision | None, snapshot: Snapshot) -> Doc:
    return {
        "number": revision.number,
        "at": revision.at,
        "changed_by": revision.changed_by or None,
        "rolled_back_to": revision.rolled_back_to,
        "fields": {} if before is None else _between(before.model, revision.model, snapshot),
    }


def _between(before: Model, after: Model, snapshot: Snapshot) -> dict[str, Doc]:
    return differences_shown(document_of(before, snapshot), document_of(after, snapshot))


async def _roll_back(call: ApiCall) -> ApiResponse:
    model: Model = models.RESOURCE.item(call)
    number, dry_run = call.document.get("to"), bool(call.document.get("dry_run"))
    revision = chosen(await revisions_of(call.context.store, model.id), model, number)
    fields = _between(model, attrs.evolve(model, **changes_to(revision, model)), call.snapshot)
    document: dict[str, Any] = {"to": revision.number, "dry_run": dry_run, "fields": fields}
    if not fields:
        raise Conflict(f"Model {model.name!r} is as it was at revision {revision.number}")
    if dry_run:
        refuse_wrong(attrs.evolve(model, **changes_to(revision, model)), call.snapshot)
        call.audit.action = ""
        return ApiResponse(document=document)
    call.audit.concerns(model)
    call.audit.details["changes"] = sorted(fields)
    call.audit.details["to"] = revision.number
    by = call.caller.username

    def work(tx: Tx) -> Model:
        before = tx.get(Model, model.id)
        if before is None or any(getattr(before, name) != getattr(model, name) for name in SPEC_FIELDS):
            raise Conflict(f"Model {model.name!r} was changed meanwhile: look at it and roll back again")
        changes = changes_to(revision, before)
        refuse_wrong(attrs.evolve(before, **changes), tx.snapshot)
        return deployment.change_model(tx, before, changes, by=by, rolled_back_to=revision.number)

    await call.context.store.write(work)
    return ApiResponse(document=document)


_REVISION = Document(
    name="ModelRevision",
    fields={
        "number": Integer(least=1),
        "at": Nullable(Instant()),
        "changed_by": Nullable(Text()),
        "rolled_back_to": Nullable(Integer(least=1)),
        "fields": FIELD_CHANGES,
    },
    note="fields are those that differ from the revision before, with secrets masked.",
)

ROUTES = tagged(
    "models",
    (
        ApiRoute(
            method="GET",
            path="/v1/models/{id}/revisions",
            summary="List the last revisions of a model, the newest first",
            handler=_list,
            answer=Document(name="ModelRevisionList", fields={"items": Array(_REVISION)}),
        ),
        ApiRoute(
            method="POST",
            path="/v1/models/{id}/rollback",
            summary="Bring a former revision of a model back; without a number the one before the last change",
            handler=_roll_back,
            about=Model,
            action="model.rollback",
            body=Document(
                name="ModelRollback",
                fields={"to": Nullable(Integer(least=1)), "dry_run": Boolean()},
                strict=True,
            ),
            answer=Document(
                name="ModelRolledBack",
                fields={"to": Integer(least=1), "dry_run": Boolean(), "fields": FIELD_CHANGES},
                note="to is the revision that was brought back; fields are those that changed by that.",
            ),
        ),
    ),
)

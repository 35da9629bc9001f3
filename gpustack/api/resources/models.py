"""Deployments: created, changed and removed; the list also answers clients that speak OpenAI."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs

from gpustack.domain.access import Principal, Role
from gpustack.domain.model import Model
from gpustack.policy.access import LISTING_MODELS, READING, may_see
from gpustack.server import deployment

from ..deployment import MODEL_BODY, changes_from, model_from, refuse_wrong
from ..listing import ListSelection, PageRange, ordered, page_document, rendered
from ..request import is_whole
from ..resource import NO_ROLE, Resource
from ..route import WITH_ANYBODY, ApiCall, ApiResponse, ApiRoute
from ..shape import Document
from ..view import View
from ..wire import INSTANCE, MODEL, MODEL_FOR_USERS
from . import openai_models


def _view_for(principal: Principal) -> View:
    """Environments hold secrets: an administrator's key that may not read sees what users see."""
    return MODEL if principal.role is Role.ADMIN and principal.has_scope(*READING) else MODEL_FOR_USERS


def _openai_keys(call: ApiCall) -> dict[str, Any]:
    """The keys that make the list one of OpenAI's too: all models that serve, whatever the page."""
    return openai_models.document(call, wanted=frozenset(), with_meta=False)


async def _read(call: ApiCall) -> ApiResponse:
    """By id for our clients, by name for OpenAI's. A text that is both is taken for a name."""
    given = call.request.params["id"]
    if not is_whole(given) or call.snapshot.find(Model, name=given) is not None:
        return openai_models.one(call, given)
    return RESOURCE.respond(call, RESOURCE.item(call))


async def _create(call: ApiCall) -> Model:
    model = model_from(call.document)
    refuse_wrong(model, call.snapshot)
    return await deployment.create_model(call.context.store, model, by=call.caller.username)


async def _update(call: ApiCall, before: Model) -> Model:
    changes: Mapping[str, Any] = changes_from(call.document, before)
    refuse_wrong(attrs.evolve(before, **changes), call.snapshot)
    by = call.caller.username
    return await deployment.update_model(call.context.store, before.id, changes, by=by)


async def _delete(call: ApiCall, model: Model) -> None:
    await deployment.delete_model(call.context.store, model.id)


async def _instances(call: ApiCall) -> ApiResponse:
    model, context = RESOURCE.item(call), call.rendering()
    render = partial(INSTANCE.render, faults=call.context.documents.faults)
    found = await ordered(context.snapshot.instances_of(model.id), render, context, call.query)
    page = PageRange(size=max(len(found), 100))  # all of them, as clients expect of this list
    return ApiResponse(document=page_document(await rendered(found, render, context), page, len(found)))


RESOURCE = Resource(
    path="/v1/models",
    name="Model",
    record=Model,
    view=MODEL,
    list_by=WITH_ANYBODY,  # not for workers: their assignments tell them of theirs, and environments hold secrets
    list_scopes=LISTING_MODELS,
    read_by=NO_ROLE,  # by a route of its own
    visible=may_see,
    view_for=_view_for,
    selection=ListSelection(
        filters=(openai_models.BY_CATEGORY,),
        search=lambda model: (model.name,),
    ),
    page_extra=_openai_keys,
    create_body=Document(
        name="ModelCreate",
        fields=MODEL_BODY,
        required=("name", "source"),
        note="Of the source only the fields of its kind are taken.",
    ),
    create=_create,
    update_body=Document(name="ModelUpdate", fields=MODEL_BODY, note="Fields that are not sent stay."),
    update=_update,
    delete=_delete,
    routes=(
        ApiRoute(
            method="GET",
            path="/v1/models/{id}",
            summary="Read a model; by its name in place of its number, as OpenAI's clients do, one that serves",
            handler=_read,
            allow=WITH_ANYBODY,
            scopes=LISTING_MODELS,
            answer=MODEL,
            slashes=True,
        ),
        ApiRoute(
            method="GET",
            path="/v1/models/{id}/instances",
            summary="List all instances of a model",
            handler=_instances,
            answer=INSTANCE,
            listed=True,
        ),
    ),
)

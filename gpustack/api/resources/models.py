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
from ..listing import ListFilter, ListSelection, PageRange, ordered, page_document, rendered
from ..request import is_whole
from ..resource import NOBODY, Resource
from ..route import WITH_ANYBODY, ApiCall, ApiResponse, ApiRoute
from ..shape import Document, Text
from ..wire import INSTANCE, MODEL, MODEL_FOR_USERS, View
from . import openai_models


def _view_for(principal: Principal) -> View:
    """A key that only uses models sees of them what users see: environments hold secrets."""
    return MODEL if principal.role is Role.ADMIN and principal.has_scope(*READING) else MODEL_FOR_USERS


def _openai_keys(call: ApiCall) -> dict[str, Any]:
    """What makes the list one of OpenAI's too: all models that serve, whatever the page."""
    return openai_models.document(call, wanted=frozenset(), with_meta=False)


async def _read(call: ApiCall) -> ApiResponse:
    """Our clients know a model by its number, those of OpenAI by its name. A name that is a number is a name first."""
    given = call.ask.params["id"]
    if not is_whole(given) or call.snapshot.find(Model, name=given) is not None:
        return openai_models.one(call, given)
    return RESOURCE.shown(call, RESOURCE.item(call))


async def _create(call: ApiCall) -> Model:
    model = model_from(call.document)
    refuse_wrong(model, call.snapshot)
    return await deployment.create_model(call.context.store, model)


async def _update(call: ApiCall, before: Model) -> Model:
    changes: Mapping[str, Any] = changes_from(call.document, before)
    refuse_wrong(attrs.evolve(before, **changes), call.snapshot)
    return await deployment.update_model(call.context.store, before.id, changes, version=None)


async def _delete(call: ApiCall, model: Model) -> None:
    await deployment.delete_model(call.context.store, model.id)


async def _instances(call: ApiCall) -> ApiResponse:
    model, look = RESOURCE.item(call), call.look()
    shown = partial(INSTANCE.shown, faults=call.context.printed.faults)
    found = await ordered(look.snapshot.instances_of(model.id), shown, look, call.query)
    page = PageRange(size=max(len(found), 100))  # all of them, as clients expect of this list
    return ApiResponse(document=page_document(await rendered(found, shown, look), page, len(found)))


RESOURCE = Resource(
    path="/v1/models",
    name="Model",
    record=Model,
    view=MODEL,
    list_by=WITH_ANYBODY,  # workers learn of their own by their assignments: others' environments hold secrets
    list_scopes=LISTING_MODELS,
    read_by=NOBODY,  # by a route of its own
    visible=may_see,
    view_for=_view_for,
    selection=ListSelection(
        filters=(
            ListFilter(
                name="categories",
                names=("categories[]",),
                shape=Text(),
                many=True,
                matches=openai_models.in_categories,
            ),
        ),
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

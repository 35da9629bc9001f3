"""Routes, their targets and who may use them, derived from the models: each model has one, of the same number."""

from __future__ import annotations

from typing import Any

import attrs

from gpustack.domain.access import User
from gpustack.domain.model import Model, ModelAccess
from gpustack.policy.access import LISTING_MODELS, may_see

from ...listing import ListSelection, PageRange, equal, page_document
from ...problems import MalformedRequest
from ...resource import NO_ROLE, Resource, routes_of
from ...resources import models, openai_models
from ...route import PEOPLE, ApiCall, ApiResponse, ApiRoute
from ...shape import AnyJson, Array, Boolean, Choice, Document, Integer, Nullable, Text
from ...view import Doc, RenderContext, View
from ...wire import MODEL
from .models import policy_from

_TARGET = "{}-target"
_FULL_WEIGHT = 100

_FIELDS = ("id", "name", "description", "categories", "meta", "access_policy", "created_at", "updated_at")


def _route(model: Model, context: RenderContext) -> Doc:
    shown = MODEL.of(model, context)
    return {
        **{name: shown[name] for name in _FIELDS},
        "effective_name": model.name,
        "generic_proxy": False,
        "created_model_id": model.id,
        "targets": 1,
        "ready_targets": int(model.ready_replicas > 0),
    }


ROUTE = View(
    schema=Document(
        name="ModelRoute",
        fields={
            **{name: MODEL.schema.fields[name] for name in _FIELDS},
            "effective_name": Text(),
            "generic_proxy": Boolean(),
            "created_model_id": Integer(),
            "targets": Integer(),
            "ready_targets": Integer(),
        },
    ),
    of=_route,
)


def _target(model: Model, context: RenderContext) -> Doc:
    shown = MODEL.of(model, context)
    return {
        **{name: shown[name] for name in ("id", "created_at", "updated_at")},
        "name": _TARGET.format(model.name),
        "route_id": model.id,
        "route_name": model.name,
        "model_id": model.id,
        "provider_id": None,
        "weight": _FULL_WEIGHT,
        "overridden_model_name": None,
        "fallback_status_codes": None,
        "state": "active" if model.ready_replicas else "unavailable",
    }


TARGET = View(
    schema=Document(
        name="ModelRouteTarget",
        fields={
            "id": Integer(),
            "name": Text(),
            "route_id": Integer(),
            "route_name": Text(),
            "model_id": Integer(),
            "provider_id": Nullable(Integer()),
            "weight": Integer(),
            "overridden_model_name": Nullable(Text()),
            "fallback_status_codes": Nullable(Array(Text())),
            "state": Text(),
            "created_at": MODEL.schema.fields["created_at"],
            "updated_at": MODEL.schema.fields["updated_at"],
        },
    ),
    of=_target,
)


async def _update(call: ApiCall, model: Model) -> Model:
    assert models.RESOURCE.update is not None
    updated: Model = await models.RESOURCE.update(call, model)
    return updated


_SELECTION = ListSelection(
    filters=(
        openai_models.BY_CATEGORY,
        equal("name", Text()),
    ),
    search=lambda model: (model.name,),
)
_BODY = {name: models.RESOURCE.update_body.fields[name] for name in ("name", "description", "categories")}  # type: ignore[union-attr]  # it is a Document

RESOURCE = Resource(
    path="/v2/model-routes",
    name="Model route",
    record=Model,
    view=ROUTE,
    create_by=NO_ROLE,
    delete_by=NO_ROLE,
    selection=_SELECTION,
    update_body=Document(name="ModelRouteUpdate", fields=_BODY),
    update=_update,
)
MINE = attrs.evolve(
    RESOURCE,
    path="/v2/my-models",
    list_by=PEOPLE,
    list_scopes=LISTING_MODELS,
    read_by=PEOPLE,
    visible=may_see,
    update=None,
)
TARGETS = Resource(
    path="/v2/model-route-targets",
    name="Model route target",
    record=Model,
    view=TARGET,
    selection=ListSelection(
        filters=(
            equal("route_id", Integer(), lambda model: model.id),
            equal("model_id", Integer(), lambda model: model.id),
            equal("route_name", Text(), lambda model: model.name),
        )
    ),
)


async def _targets(call: ApiCall) -> ApiResponse:
    found = [TARGET.of(RESOURCE.item(call), call.rendering())]
    return ApiResponse(document=page_document(found, PageRange(), 1))


def _access(call: ApiCall, model: Model) -> Doc:
    allowed = [call.snapshot.get(User, key) for key in model.allowed_user_ids or ()]
    users = [user for user in allowed if user is not None]
    names = ("id", "username", "full_name", "avatar_url")
    return {
        "access_policy": model.access.value,
        "items": [{name: getattr(user, name) for name in names} for user in users],
        "principals": [{"principal_type": "user", "principal_id": user.id} for user in users],
    }


async def _read_access(call: ApiCall) -> ApiResponse:
    return ApiResponse(document=_access(call, RESOURCE.item(call)))


async def _write_access(call: ApiCall) -> ApiResponse:
    model: Model = RESOURCE.item(call)
    given = call.document
    fields: Doc = {}
    if given.get("access_policy") is not None:
        faults: list[str] = []
        policy = policy_from(given["access_policy"])
        fields["access_policy"] = Choice(ModelAccess).read(policy, "access_policy", faults)
        if faults:
            raise MalformedRequest(*faults)
    if given.get("users") is not None or given.get("principals") is not None:
        wanted = [
            *_ids("users", given.get("users") or ()),
            *_ids("principals", given.get("principals") or ()),
        ]
        if unknown := [key for key in wanted if key not in call.snapshot.all(User)]:
            raise MalformedRequest(f"users: there is no account {unknown[0]}")
        fields["allowed_users"] = tuple(wanted)
    changed = await _update(attrs.evolve(call, document=fields), model)
    return ApiResponse(document=_access(call, changed))


def _ids(field: str, given: Any) -> list[int]:
    """The numbers of accounts, however they are written. Raises ``MalformedRequest``: there are no other principals."""
    found = []
    for place, one in enumerate(given):
        kind = one.get("principal_type", one.get("kind", "user")) if isinstance(one, dict) else "user"
        key = one.get("principal_id", one.get("id")) if isinstance(one, dict) else one
        if not isinstance(key, int) or isinstance(key, bool) or str(kind).lower() != "user":
            raise MalformedRequest(
                f"{field}[{place}]: must be the number of an account: there are no other principals"
            )
        found.append(key)
    return found


_ACCESS = ("access_policy", "users", "principals")
ROUTES = (
    *(
        attrs.evolve(one, action="model.update") if one.method == "PUT" else one
        for one in routes_of(RESOURCE)
    ),
    *routes_of(MINE),
    *routes_of(TARGETS),
    ApiRoute(
        method="GET",
        path="/v2/model-routes/{id}/targets",
        summary="List the one target of a route",
        handler=_targets,
        answer=TARGET,
        listed=True,
    ),
    ApiRoute(
        method="GET",
        path="/v2/model-routes/{id}/access",
        summary="Tell who may use a route",
        handler=_read_access,
    ),
    ApiRoute(
        method="POST",
        path="/v2/model-routes/{id}/access",
        summary="Say who may use a route",
        handler=_write_access,
        body=Document(
            name="ModelRouteAccess",
            fields={
                "access_policy": Nullable(Text(longest=64)),
                "users": Nullable(Array(AnyJson())),
                "principals": Nullable(Array(AnyJson())),
            },
        ),
        about=Model,
        action="model.update",
    ),
)

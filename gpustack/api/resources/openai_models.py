"""The models that serve now, as OpenAI's clients list them."""

from __future__ import annotations

from typing import Any

from gpustack.domain.model import Model
from gpustack.policy.access import LISTING_MODELS, may_see, not_serving, unknown

from ..listing import ListFilter
from ..route import WITH_ANYBODY, ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import AnyJson, Array, Boolean, Document, Integer, Nullable, QueryParameter, Text
from ..wire import CATEGORY_FLAGS, openai_model


def document(call: ApiCall, *, wanted: frozenset[str], with_meta: bool) -> dict[str, Any]:
    """OpenAI's list of the models that the caller may use and that have a running replica; with ``wanted``, only those
    in one of these categories."""
    serving = [model for model in call.snapshot.models.values() if model.ready_replicas > 0]
    chosen = [model for model in serving if not wanted or in_categories(model, wanted)]
    chosen = [model for model in chosen if may_see(call.caller, model)]
    chosen.sort(key=lambda model: model.id)
    data: list[dict[str, Any]] = []
    for model in chosen:
        with call.context.documents.faults.row((MODEL.name, model.id)):
            data.append(openai_model(model, with_meta=with_meta))
            for adapter in model.lora_adapters:
                name = f"{model.name}:{adapter.name}"
                if call.snapshot.find(Model, name=name) is None:
                    data.append({**openai_model(model, with_meta=with_meta), "id": name})
    return {"object": "list", "data": data}


def in_categories(model: Model, wanted: frozenset[str]) -> bool:
    """Whether a model has any of the categories; the empty text stands for models that have none."""
    return bool(wanted & set(model.categories)) or ("" in wanted and not model.categories)


BY_CATEGORY = ListFilter(
    name="categories", names=("categories[]",), shape=Text(), many=True, matches=in_categories
)


def one(call: ApiCall, name: str) -> ApiResponse:
    """The model of that name, if it is in the caller's list. Raises the same error as inference for one that is not."""
    model = call.snapshot.find(Model, name=name) or _of_adapter(call, name)
    if model is None or not may_see(call.caller, model):
        raise unknown(call.caller, name)
    if model.ready_replicas == 0:
        raise not_serving(name)
    return ApiResponse(document={**openai_model(model, with_meta=call.query.flag("with_meta")), "id": name})


def _of_adapter(call: ApiCall, name: str) -> Model | None:
    """The model whose adapter is called ``<model>:<adapter>``."""
    base, _, adapter = name.rpartition(":")
    model = call.snapshot.find(Model, name=base) if adapter else None
    return model if model is not None and any(one.name == adapter for one in model.lora_adapters) else None


async def _one(call: ApiCall) -> ApiResponse:
    return one(call, call.request.params["name"])


async def _list(call: ApiCall) -> ApiResponse:
    wanted = set(call.query.many("categories", "categories[]"))
    wanted |= {category.value for name, category in CATEGORY_FLAGS.items() if call.query.flag(name)}
    return ApiResponse(
        document=document(call, wanted=frozenset(wanted), with_meta=call.query.flag("with_meta"))
    )


MODEL = Document(
    name="OpenAIModel",
    fields={
        "id": Text(),
        "object": Text(),
        "created": Integer(),
        "owned_by": Text(),
        "meta": Nullable(AnyJson()),
    },
)

WITH_META = QueryParameter(name="with_meta", shape=Boolean(), note="With what the engine says of the model.")

ROUTES = tagged(
    "models",
    (
        ApiRoute(
            method="GET",
            path="/v1-openai/models",
            summary="List the models that serve, as OpenAI does",
            handler=_list,
            allow=WITH_ANYBODY,
            scopes=LISTING_MODELS,
            query=(
                QueryParameter(
                    name="categories[]", shape=Text(), many=True, note="Any of them; empty for none."
                ),
                WITH_META,
                *(QueryParameter(name=name, shape=Boolean(), note="Deprecated.") for name in CATEGORY_FLAGS),
            ),
            answer=Document(name="OpenAIModels", fields={"object": Text(), "data": Array(MODEL)}),
        ),
        ApiRoute(
            method="GET",
            path="/v1-openai/models/{name}",
            summary="Read one of the models that serve, as OpenAI does",
            handler=_one,
            allow=WITH_ANYBODY,
            scopes=LISTING_MODELS,
            query=(WITH_META,),
            answer=MODEL,
            slashes=True,
        ),
    ),
)

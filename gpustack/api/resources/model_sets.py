"""The model catalog: sets of models, and the deployments that each set offers."""

from __future__ import annotations

from collections.abc import Sequence

from gpustack.domain.catalog import ModelSet, ModelSpec
from gpustack.errors import NotFound

from ..deployment import MODEL_BODY
from ..listing import PAGE_PARAMETERS, ListSelection, PageRange, ordered, page_document, rendered
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, Document, Integer, Nullable, Number, Text
from ..view import Doc, RenderContext, View, fields_of, plain
from .openai_models import BY_CATEGORY

_SHOWN = (
    "id",
    "name",
    "description",
    "home",
    "icon",
    "categories",
    "capabilities",
    "sizes",
    "licenses",
    "release_date",
    "order",
)


def _set_document(one: ModelSet, context: RenderContext) -> Doc:
    return fields_of(one, _SHOWN)


def _spec_document(spec: ModelSpec, context: RenderContext) -> Doc:
    return {**plain(spec.fields), "size": spec.size, "quantization": spec.quantization}


MODEL_SET = View(
    schema=Document(
        name="ModelSet",
        fields={
            "id": Integer(),
            **{name: Nullable(Text()) for name in ("description", "home", "icon", "release_date")},
            **{name: Array(Text()) for name in ("categories", "capabilities", "licenses")},
            "name": Text(),
            "sizes": Array(Number()),
            "order": Nullable(Number()),
        },
        note="A family of models in the catalog. Sizes are billions of parameters.",
    ),
    of=_set_document,
)
MODEL_SPEC = View(
    schema=Document(
        name="ModelSpec",
        fields={**MODEL_BODY, "size": Nullable(Number()), "quantization": Nullable(Text())},
        note="The fields of a deployment as the catalog offers it: give it a name, and create it.",
    ),
    of=_spec_document,
)

SELECTION = ListSelection(
    filters=(BY_CATEGORY,),
    search=lambda one: (one.name,),
)


async def _all(call: ApiCall) -> Sequence[ModelSet]:
    return () if call.context.models.catalog is None else await call.context.models.catalog.sets()


async def _list(call: ApiCall) -> ApiResponse:
    predicate = SELECTION.predicate(call.query, lambda one: True)
    page, context = PageRange.of(call.query), call.rendering()
    found = [one for one in await _all(call) if predicate(one)]
    if call.query.one("sort_by", "sortBy"):  # else in the order of the catalog
        found = await ordered(found, MODEL_SET.of, context, call.query)
    items = await rendered(page.cut(found), MODEL_SET.of, context)
    return ApiResponse(document=page_document(items, page, len(found)))


async def _specs(call: ApiCall) -> ApiResponse:
    wanted = call.number()
    one = next((one for one in await _all(call) if one.id == wanted), None)
    if one is None:
        raise NotFound(f"Model set {wanted} does not exist")
    page, specs = PageRange.of(call.query), one.specs
    items = await rendered(page.cut(specs), MODEL_SPEC.of, call.rendering())
    return ApiResponse(document=page_document(items, page, len(specs)))


ROUTES = tagged(
    "model-sets",
    (
        ApiRoute(
            method="GET",
            path="/v1/model-sets",
            summary="List the catalog in its order",
            handler=_list,
            query=SELECTION.parameters,
            answer=MODEL_SET,
            listed=True,
        ),
        ApiRoute(
            method="GET",
            path="/v1/model-sets/{id}/specs",
            summary="List the deployments that a model set offers",
            handler=_specs,
            query=PAGE_PARAMETERS,
            answer=MODEL_SPEC,
            listed=True,
        ),
    ),
)

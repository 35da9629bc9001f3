"""The voices of a speech model. Deprecated: they are part of a model's ``meta``."""

from __future__ import annotations

from gpustack.domain.model import Model
from gpustack.errors import BadRequest
from gpustack.policy.access import LISTING_MODELS, may_see, unknown

from ..route import WITH_ANYBODY, ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, Document, QueryParameter, Text
from ..view import plain


async def _voices(call: ApiCall) -> ApiResponse:
    name = call.query.one("model")
    if not name:
        raise BadRequest("Missing 'model' field")
    model = call.snapshot.find(Model, name=name)
    if model is None or not may_see(call.caller, model):
        raise unknown(call.caller, name)
    voices = plain(model.meta.get("voices"))
    listed = voices if isinstance(voices, list) else []
    return ApiResponse(document={"voices": listed}, headers=(("Deprecation", "true"),))


ROUTES = tagged(
    "models",
    (
        ApiRoute(
            method="GET",
            path="/v1/voices",
            summary="List the voices of a model; deprecated: GET /v1-openai/models?with_meta=true has them",
            handler=_voices,
            allow=WITH_ANYBODY,
            scopes=LISTING_MODELS,
            query=(QueryParameter(name="model", shape=Text(), note="The name of a deployment."),),
            answer=Document(name="Voices", fields={"voices": Array(Text())}),
        ),
    ),
)

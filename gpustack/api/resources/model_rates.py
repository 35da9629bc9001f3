"""How fast models read and write now."""

from __future__ import annotations

from ..brief import RATE, brief_rate
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, Document, Integer


async def _rates(call: ApiCall) -> ApiResponse:
    rates = call.context.usage.rates
    shown = [
        {"model_id": key, **({} if rates is None else brief_rate(rates.of(key)))}
        for key in sorted(call.snapshot.models)
    ]
    return ApiResponse(document={"items": shown})


ROUTES = tagged(
    "models",
    (
        ApiRoute(
            method="GET",
            path="/v1/model-rates",
            summary="Tokens a second of each model, means of half a minute, and when it was used last",
            handler=_rates,
            answer=Document(
                name="ModelRates",
                fields={"items": Array(Document(name="ModelRate", fields={"model_id": Integer(), **RATE}))},
                note="What is not known is left out: rates in the first seconds of a server, a last use before the "
                "servers started (`/v1/usage` has that).",
            ),
        ),
    ),
)

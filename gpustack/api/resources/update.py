"""The latest announced version that this server knows of."""

from __future__ import annotations

from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Document, Instant, Nullable, Text


async def _update(call: ApiCall) -> ApiResponse:
    updates = call.context.server.updates
    if updates is None:
        return ApiResponse(
            document={"latest_version": call.context.server.version.version, "checked_at": None}
        )
    return ApiResponse(document={"latest_version": updates.shown, "checked_at": updates.checked_at})


ROUTES = tagged(
    "server",
    (
        ApiRoute(
            method="GET",
            path="/update",
            summary="The latest version announced; this one's own while nothing was heard (checked_at is null)",
            handler=_update,
            answer=Document(
                name="Update", fields={"latest_version": Text(), "checked_at": Nullable(Instant())}
            ),
        ),
    ),
)

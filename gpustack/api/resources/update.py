"""The latest version that has been announced, as far as this server has heard."""

from __future__ import annotations

from ..route import Call, Reply, Route, tagged
from ..shape import Document, Instant, Maybe, Text


async def _update(call: Call) -> Reply:
    updates = call.context.updates
    if updates is None:
        return Reply(document={"latest_version": call.context.version.version, "checked_at": None})
    return Reply(document={"latest_version": updates.shown, "checked_at": updates.checked_at})


ROUTES = tagged(
    "server",
    (
        Route(
            method="GET",
            path="/update",
            summary="The latest version announced; this one's own while nothing was heard (checked_at is null)",
            handler=_update,
            answer=Document(name="Update", fields={"latest_version": Text(), "checked_at": Maybe(Instant())}),
        ),
    ),
)

"""The servers of the cluster, as the one that answers knows them."""

from __future__ import annotations

from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, Boolean, Document, Number, Text


async def _servers(call: ApiCall) -> ApiResponse:
    found = [
        {
            "id": server.uuid,
            "url": server.url,
            "version": server.version,
            "is_live": server.lives,
            "is_leading": server.leads and server.lives,
            "seconds_silent": round(server.silent, 1),
        }
        for server in call.context.server.servers()
    ]
    return ApiResponse(document={"items": found})


ROUTES = tagged(
    "server",
    (
        ApiRoute(
            method="GET",
            path="/v1/servers",
            summary="The servers on this database, which of them live, and which of them leads",
            handler=_servers,
            answer=Document(
                name="Servers",
                fields={
                    "items": Array(
                        Document(
                            name="Server",
                            fields={
                                "id": Text(),
                                "url": Text(),
                                "version": Text(),
                                "is_live": Boolean(),
                                "is_leading": Boolean(),
                                "seconds_silent": Number(),
                            },
                            note="url is where workers reach it; seconds_silent is of the last look, some seconds ago.",
                        )
                    )
                },
            ),
        ),
    ),
)

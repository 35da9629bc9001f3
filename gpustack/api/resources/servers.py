"""The servers of the cluster, as the one that is asked knows them: on a database of its own there is that one."""

from __future__ import annotations

from ..route import Call, Reply, Route, tagged
from ..shape import Document, Flag, Many, Number, Text


async def _servers(call: Call) -> Reply:
    found = [
        {
            "id": server.uuid,
            "url": server.url,
            "version": server.version,
            "is_live": server.lives,
            "is_leading": server.leads and server.lives,
            "seconds_silent": round(server.silent, 1),
        }
        for server in call.context.servers()
    ]
    return Reply(document={"items": found})


ROUTES = tagged(
    "server",
    (
        Route(
            method="GET",
            path="/v1/servers",
            summary="The servers on this database, which of them live, and which of them leads",
            handler=_servers,
            answer=Document(
                name="Servers",
                fields={
                    "items": Many(
                        Document(
                            name="Server",
                            fields={
                                "id": Text(),
                                "url": Text(),
                                "version": Text(),
                                "is_live": Flag(),
                                "is_leading": Flag(),
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

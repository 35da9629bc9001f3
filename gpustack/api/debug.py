"""For administrators who look inside: the tree of tasks, and how much is logged."""

from __future__ import annotations

import logging

from gpustack.errors import Invalid
from gpustack.logs import TRACE

from .route import Call, Reply, Route, tagged

LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_LOGGER = "gpustack"


async def _tasks(call: Call) -> Reply:
    return Reply(document=call.context.draw_tasks())


async def _log_level(call: Call) -> Reply:
    level = logging.getLogger(_LOGGER).getEffectiveLevel()
    at_most = [name for name, number in LEVELS.items() if number <= max(level, TRACE)]
    return Reply(document=at_most[-1])


async def _set_log_level(call: Call) -> Reply:
    name = (await call.ask.body()).decode("latin-1").strip().strip('"').lower()
    if name not in LEVELS:
        raise Invalid("Invalid log level")
    call.note.details["level"] = name
    logging.getLogger(_LOGGER).setLevel(LEVELS[name])
    return Reply(document="ok")


ROUTES = tagged(
    "debug",
    (
        Route(
            method="GET",
            path="/debug/tasks",
            summary="Every task of the server and what it waits for",
            handler=_tasks,
            hidden=True,
        ),
        Route(
            method="GET",
            path="/debug/log_level",
            summary="How much is logged",
            handler=_log_level,
            hidden=True,
        ),
        Route(
            method="PUT",
            path="/debug/log_level",
            summary="Log more or less: trace, debug, info, warning, error or critical, as plain text",
            handler=_set_log_level,
            action="debug.log-level",
            hidden=True,
        ),
    ),
)

"""For administrators who debug a server: the tree of tasks, and the log level."""

from __future__ import annotations

import logging

from gpustack.errors import Invalid
from gpustack.logs import TRACE

from ..route import ApiCall, ApiResponse, ApiRoute, tagged

LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_LOGGER = "gpustack"


async def _tasks(call: ApiCall) -> ApiResponse:
    return ApiResponse(document=call.context.server.draw_tasks())


async def _log_level(call: ApiCall) -> ApiResponse:
    level = logging.getLogger(_LOGGER).getEffectiveLevel()
    at_most = [name for name, number in LEVELS.items() if number <= max(level, TRACE)]
    return ApiResponse(document=at_most[-1])


async def _set_log_level(call: ApiCall) -> ApiResponse:
    name = (await call.request.body()).decode("latin-1").strip().strip('"').lower()
    if name not in LEVELS:
        raise Invalid("Invalid log level")
    call.audit.details["level"] = name
    logging.getLogger(_LOGGER).setLevel(LEVELS[name])
    return ApiResponse(document="ok")


ROUTES = tagged(
    "debug",
    (
        ApiRoute(
            method="GET",
            path="/debug/tasks",
            summary="Every task of the server and what it waits for",
            handler=_tasks,
            hidden=True,
        ),
        ApiRoute(
            method="GET",
            path="/debug/log_level",
            summary="How much is logged",
            handler=_log_level,
            hidden=True,
        ),
        ApiRoute(
            method="PUT",
            path="/debug/log_level",
            summary="Log more or less: trace, debug, info, warning, error or critical, as plain text",
            handler=_set_log_level,
            action="debug.log-level",
            hidden=True,
        ),
    ),
)

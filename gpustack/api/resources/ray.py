"""Ray's dashboard, for administrators: passed on from the loopback of the leading server, to be read only.

Changing anything (``POST /api/jobs/`` runs any program) is not passed on, and what is shown of logs is no page here: it
would be one of this origin. Neither are the pages that, though only read, set something going on a machine.
"""

from __future__ import annotations

import posixpath
from contextlib import AsyncExitStack
from urllib.parse import quote, urlencode

from gpustack.errors import NotFound

from ..access import guards_of, still_admitted
from ..body_stream import OpenedStream, RevocableStream
from ..route import ApiCall, ApiResponse, ApiRoute, tagged

PATH = "/ray"
_PASSED_ON = ("accept", "accept-encoding", "range")
_GIVEN_BACK = ("content-encoding", "content-range", "accept-ranges", "cache-control")
_AS_A_BROWSER = {"user-agent": b"Mozilla/5.0 (GPUStack)", "sec-fetch-mode": b"cors"}
"""Ray leaves the secrets in ``runtime_env`` out for browsers, which it knows by these."""
_NOT_PASSED_ON = ("api/v0/delay/", "api/packages/", "test/")
_PAGES = frozenset({"", "index.html"})
_CONNECTION = 256 << 10
"""Bytes in memory while one answer is passed on, whatever its size."""
_SAFE = (
    (
        "Content-Security-Policy",
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        "object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
)


async def _home(call: ApiCall) -> ApiResponse:
    if not call.request.path.endswith("/"):  # the page's own addresses are relative
        return ApiResponse(status=308, body=b"", headers=(("Location", f"{PATH}/"),))
    return await _pass_on(call, "")


async def _page(call: ApiCall) -> ApiResponse:
    return await _pass_on(call, call.request.params["path"])


async def _pass_on(call: ApiCall, path: str) -> ApiResponse:
    context, caller = call.context, call.caller
    if context.ray is None:
        raise NotFound("Ray is off: start the servers and workers with --enable-ray")
    if _sets_something_going(path):
        raise NotFound("This page of Ray's dashboard is not passed on")
    query = urlencode(call.query.pairs)
    target = f"/{quote(path)}{'?' if query else ''}{query}".encode()
    asked = {name: value for name in _PASSED_ON if (value := call.request.header(name.encode())) is not None}
    if call.request.hold is not None:
        call.request.hold.take(_CONNECTION)
    async with AsyncExitStack() as stack:
        answer = await stack.enter_async_context(context.ray.read(target, asked | _AS_A_BROWSER))
        told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
        kind = told.get("content-type", "application/octet-stream")
        if "html" in kind.lower() and path not in _PAGES:
            kind = "text/plain; charset=utf-8"
        stream = RevocableStream(
            stream=OpenedStream(stack.pop_all(), aiter(answer.chunks())),
            store=context.store,
            guards=guards_of(caller),
            allowed=lambda: still_admitted(context, caller),
        )
        back = [(name, told[name]) for name in _GIVEN_BACK if name in told]
        return ApiResponse(status=answer.status, stream=stream, content_type=kind, headers=(*back, *_SAFE))
    raise AssertionError("an answer was returned or a fault raised")


def _sets_something_going(path: str) -> bool:
    """Whether reading the page profiles or stops a process, holds the dashboard up, or hands out what jobs brought."""
    plain = posixpath.normpath(f"/{path}").lstrip("/").lower()
    last = posixpath.basename(plain)
    return last.endswith("_profile") or last == "traceback" or f"{plain}/".startswith(_NOT_PASSED_ON)


ROUTES = tagged(
    "ray",
    (
        ApiRoute(method="GET", path=PATH, summary="Ray's dashboard (--enable-ray)", handler=_home),
        ApiRoute(
            method="GET",
            path=f"{PATH}/{{path}}",
            summary="What Ray's dashboard reads; nothing is changed through it",
            handler=_page,
            slashes=True,
        ),
    ),
)

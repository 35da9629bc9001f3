"""The API as an ASGI application: each request goes to its route, each error becomes an answer."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, cast

import attrs
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent
from quart import Response, request
from quart.routing import QuartMap, QuartRule
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.exceptions import MethodNotAllowed as NotPossible

from gpustack.config.sign_on import SAML_CALLBACK
from gpustack.errors import GpustackError, PayloadTooLarge, Unavailable
from gpustack.http1.handoff import OWNER, READ_BODY, ReadBody
from gpustack.server.memory_budget import MemoryBudget, MemoryReservation

from .body_stream import BodyStream
from .context import ApiContext
from .problems import INTERNAL, Problem, problem_of, problem_of_status
from .request import ApiRequest, Query
from .resource import all_routes
from .route import ApiResponse, ApiRoute, carry_out
from .v2.face import v2_routes

log = logging.getLogger(__name__)

LARGEST_BODY = 2 << 20
"""Bytes of a management request."""
LARGEST_FORM = 16 << 10
"""Bytes of a request to ``/auth/``: anybody may send one, and it is kept in memory until it is complete."""
LARGEST_ANSWER = 512 << 10
"""Bytes of a form with a SAML answer, which holds certificates and groups and may be encrypted."""
LARGE_ANSWER = 64 << 10
"""Bytes from which an answer counts as kept in memory until it is sent; a stream counts as this much."""
_BODY_WITHIN = 60
_HOLD = "gpustack.hold"
_ALWAYS = {"X-Content-Type-Options": "nosniff"}
_PLACEHOLDER = re.compile(r"{(\w+)}")


class _Connection(TrioASGIHTTPConnection):
    """Counts what is kept in memory for a request until its answer is sent. Gives up on a client that does not read, so
    that it blocks neither memory nor a shutdown."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        with cast(_App, self.app).memory.hold() as hold:
            cast(dict[str, Any], self.scope)[_HOLD] = hold
            await super().__call__(receive, send)

    async def _send_response(self, send: ASGISendCallable, response: Any) -> None:
        async def bounded(event: ASGISendEvent) -> None:
            with trio.fail_after(cast(_App, self.app).stalled_after):
                await send(event)

        try:
            await super()._send_response(cast(ASGISendCallable, bounded), response)
        except trio.TooSlowError:
            log.info("Gave up on a client that does not read: path=%s", self.scope["path"])
        except GpustackError as error:  # left unfinished, so that the client sees that it was cut
            log.info("An answer broke off: path=%s reason=%s", self.scope["path"], error)
        finally:
            if isinstance(body := getattr(response, "response", None), _StreamBody):
                await body.leave()


class _Request(TrioRequest):
    """Bounds the body before the caller is known."""

    def __init__(self, method: str, scheme: str, path: str, *rest: Any, **more: Any) -> None:
        super().__init__(method, scheme, path, *rest, **{**more, "max_content_length": largest_body(path)})


def largest_body(path: str) -> int:
    """The bytes that the body of a request to ``path`` may have."""
    if path == SAML_CALLBACK:
        return LARGEST_ANSWER
    return LARGEST_FORM if path.startswith("/auth/") else LARGEST_BODY


class _App(QuartTrio):
    asgi_http_class = _Connection
    request_class = _Request
    stalled_after: float
    memory: MemoryBudget


class _StreamBody(ResponseBody):
    """A ``BodyStream`` as Quart iterates it; leaving it ends the stream, whatever the reason."""

    def __init__(self, stream: BodyStream) -> None:
        self._stream = stream
        self._left = False

    async def __aenter__(self) -> Any:
        return await self._stream.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        self._left = True
        await self._stream.__aexit__(*raised)

    async def leave(self) -> None:
        """End the stream unless it has ended: Quart does not enter it when the client is gone before."""
        if not self._left:
            await self.__aexit__(None, None, None)


@attrs.frozen
class _RouteTable:
    """All routes by the name of their endpoint, and the map that finds the endpoint of a path."""

    routes: Mapping[str, ApiRoute]
    url_map: QuartMap


@cache
def _table(docs: bool) -> _RouteTable:
    """Made once for all applications of a process: compiling the map takes a large part of a second."""
    plain = all_routes(docs=docs)
    routes = {
        f"{route.method} {route.path}".replace(".", "_"): route for route in (*plain, *v2_routes(plain))
    }
    url_map = QuartMap()
    url_map.strict_slashes = False
    url_map.merge_slashes = False
    for name, route in routes.items():
        path = _PLACEHOLDER.sub(r"<path:\1>" if route.slashes else r"<\1>", route.path)
        url_map.add(QuartRule(path, methods=[route.method], endpoint=name))
    return _RouteTable(routes, url_map)


def create_app(context: ApiContext) -> QuartTrio:
    """The application with all routes. Starts nothing and keeps no tasks."""
    app = _App(__name__, static_folder=None, template_folder=None)
    app.stalled_after = context.transport.stalled_after
    app.memory = context.transport.memory
    app.config.update(
        MAX_CONTENT_LENGTH=LARGEST_BODY,
        BODY_TIMEOUT=_BODY_WITHIN,
        RESPONSE_TIMEOUT=None,  # Quart would cut every stream after a minute
        PROVIDE_AUTOMATIC_OPTIONS=False,
    )
    table = _table(context.server.docs)
    app.url_map = table.url_map
    app.view_functions.update({name: _view(context, route) for name, route in table.routes.items()})
    app.register_error_handler(GpustackError, _named_fault)
    app.register_error_handler(HTTPException, _plain_fault)
    app.register_error_handler(500, _unnamed_fault)
    return app


def _view(context: ApiContext, route: ApiRoute) -> Callable[..., Awaitable[Response]]:
    async def view(**params: str) -> Response:
        reply = await carry_out(context, route, _api_request(params))
        if reply.stream is None:
            content = reply.content
            if len(content) >= LARGE_ANSWER:
                _hold().take(len(content))
            return _response(attrs.evolve(reply, body=content))
        try:
            _hold().take(LARGE_ANSWER)
        except Unavailable:
            await reply.stream.__aexit__(None, None, None)
            raise
        return _response(reply)

    return view


def _api_request(params: dict[str, str]) -> ApiRequest:
    # The peer is what the socket says: the client may write anything into a Remote-Addr header.
    client = request.scope.get("client")
    headers = {name.lower(): value for name, value in reversed(list(request.scope["headers"]))}
    more = cast(Mapping[str, Any], request.scope.get("state", {}))
    return ApiRequest(
        method=request.method,
        path=request.path,
        header=lambda name: headers.get(name),
        peer=client[0] if client else "",
        body=_body,
        hold=_hold(),
        params=params,
        query=Query.of(request.query_string.decode("latin-1")),
        header_names=lambda: headers,
        **({"owner": more[OWNER]} if OWNER in more else {}),
    )


def _hold() -> MemoryReservation:
    return cast(MemoryReservation, cast(dict[str, Any], request.scope)[_HOLD])


async def _body() -> bytes:
    read: ReadBody | None = request.scope.get("state", {}).get(READ_BODY)
    if read is not None:
        return await read(largest_body(request.path), _hold().take)
    try:
        return await request.get_data(cache=False, as_text=False, parse_form_data=False)
    except RequestEntityTooLarge as error:
        raise PayloadTooLarge(
            f"The request body is larger than {largest_body(request.path)} bytes"
        ) from error


def _response(reply: ApiResponse) -> Response:
    content: Any = _StreamBody(reply.stream) if reply.stream is not None else reply.content
    response = Response(content, status=reply.status, content_type=reply.content_type)
    for name, value in _ALWAYS.items():
        response.headers[name] = value
    for name, value in reply.headers:
        response.headers.add(name, value)
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
    return response


def _fault(problem: Problem, *, for_anybody: bool = False) -> Response:
    """``for_anybody``: no route was meant, so it is not known which form of errors the client reads."""
    headers = tuple(problem.headers.items())
    if problem.status == 401:
        headers = (*headers, ("WWW-Authenticate", 'Bearer realm="gpustack"'))
    body = problem.body(request.path, for_anybody=for_anybody)
    return _response(ApiResponse(status=problem.status, body=body, headers=headers))


async def _named_fault(error: GpustackError) -> Response:
    return _fault(problem_of(error))


async def _plain_fault(error: HTTPException) -> Response:
    status = error.code or 500
    if status == 404:
        return _fault(problem_of_status(404, f"There is nothing at {request.path}"), for_anybody=True)
    if status == 405:
        problem = problem_of_status(405, f"{request.method} is not possible at {request.path}")
        answer = _fault(problem, for_anybody=True)
        if isinstance(error, NotPossible):
            answer.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return answer
    return _fault(problem_of_status(status, error.description))


async def _unnamed_fault(error: Exception) -> Response:
    return _fault(INTERNAL)  # the framework has logged it with its traceback

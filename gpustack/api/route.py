"""A route: who may call it, what it takes and answers; and how a call of it is carried out, on any transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import attrs
import orjson
import trio

from gpustack.domain.access import KeyScope, Principal, Role, User
from gpustack.domain.record import Record
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import BadRequest, GpustackError, NotFound, Unauthorized
from gpustack.identity.credentials import SAFE_METHODS
from gpustack.policy.access import CHANGING, READING

from . import audit_recorder
from .access import NOT_LOCAL_ADMIN, admit, credentials_of, is_local_guest, still_admitted
from .audit_recorder import AuditRecorder
from .body_stream import BodyStream
from .context import ApiContext
from .problems import INTERNAL, MalformedRequest, problem_of
from .request import ApiRequest, Query, is_whole
from .shape import JsonShape, QueryParameter
from .view import RenderContext, View, dumps

ADMIN = frozenset({Role.ADMIN})
PEOPLE = frozenset({Role.ADMIN, Role.USER})
WORKERS = frozenset({Role.WORKER})
WITH_ANYBODY = PEOPLE | {Role.ANYBODY}


@attrs.frozen(kw_only=True)
class ApiResponse:
    """What a handler returns: a JSON document, bytes, or a stream."""

    document: Any = None
    status: int = 200
    body: bytes | None = None
    stream: BodyStream | None = None
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def content(self) -> bytes:
        return dumps(self.document) if self.body is None else self.body


def event_stream(stream: BodyStream) -> ApiResponse:
    """The answer that is a stream of events, which no proxy may hold back."""
    return ApiResponse(
        stream=stream, content_type="text/event-stream", headers=(("X-Accel-Buffering", "no"),)
    )


@attrs.frozen(kw_only=True)
class ApiCall:
    """What a handler gets."""

    context: ApiContext
    request: ApiRequest
    principal: Principal | None
    document: Any = None
    """The body as the route's shape read it."""
    audit: AuditRecorder

    @property
    def caller(self) -> Principal:
        """The principal, for routes that admit only some callers."""
        assert self.principal is not None
        return self.principal

    @property
    def account(self) -> User:
        """The caller's own account.

        Raises ``NotFound`` when it was deleted meanwhile, ``Unauthorized`` (on which a page asks for a login) for a
        caller who has none.
        """
        if is_local_guest(self.caller):
            raise Unauthorized(f"This is about one's own account. {NOT_LOCAL_ADMIN}")
        user = self.snapshot.get(User, self.caller.user_id)
        if user is None:
            raise NotFound("This account does not exist any more")
        return user

    @property
    def snapshot(self) -> Snapshot:
        return self.context.store.snapshot

    @property
    def query(self) -> Query:
        return self.request.query

    def rendering(self) -> RenderContext:
        """The present snapshot, for views."""
        return self.context.rendering()

    def number(self, name: str = "id") -> int:
        """An id in the path. Raises ``NotFound`` for a text that is no number."""
        text = self.request.params[name]
        if not is_whole(text):
            raise NotFound(f"{text!r} is not an id")
        return int(text)


@attrs.frozen(kw_only=True)
class ApiRoute:
    """One method of one path. ``allow`` is ``None`` where anybody may call, without credentials."""

    method: str
    path: str
    summary: str
    handler: Callable[[ApiCall], Awaitable[ApiResponse]]
    allow: frozenset[Role] | None = ADMIN
    tag: str = ""
    body: JsonShape | None = None
    reads_body: bool = False
    """The handler gets the body as it came, and reads it by ``body`` itself (``read_document``)."""
    body_type: str = "application/json"
    query: tuple[QueryParameter, ...] = ()
    answer: View | JsonShape | None = None
    answer_type: str = "application/json"
    listed: bool = False
    """The answer is a page of such objects."""
    before_password_change: bool = False
    """May be called while the caller still has to change the password."""
    scopes: frozenset[KeyScope] = attrs.field(
        default=attrs.Factory(
            lambda self: READING if self.method in SAFE_METHODS else CHANGING, takes_self=True
        )
    )
    """An API key that is restricted to scopes needs one of these."""
    slashes: bool = False
    """The parameter in the path may contain slashes."""
    hidden: bool = False
    """Left out of the OpenAPI document; ``docs/api.md`` has it."""
    action: str | None = None
    """Its name in the audit trail. ``None``: derived from method and path. Empty: it is not recorded."""
    about: type[Record] | None = None
    """The class of the record that the path's id names."""

    @property
    def audit_action(self) -> str:
        """``<what>.<verb>`` in the audit trail; empty where calls are not recorded, as for reading."""
        if self.action is not None:
            return self.action
        if self.method in SAFE_METHODS:
            return ""
        what, *rest = self.path.removeprefix("/v1").strip("/").split("/")
        verb = rest[-1] if rest and rest[-1] != "{id}" else _VERBS[self.method]
        return f"{what.removesuffix('s')}.{verb}"

    @property
    def of_workers(self) -> bool:
        """Only workers call it, and all the time: the audit trail records refusals alone."""
        return self.allow == WORKERS


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "update", "DELETE": "delete"}


async def carry_out(context: ApiContext, route: ApiRoute, request: ApiRequest) -> ApiResponse:
    """Admit the caller, read the body, run the handler, tell the audit trail.

    Who calls is settled before a byte of the body is read. Raises ``GpustackError`` for what the caller did wrong.
    Cancelled, it may leave a write done or not done, and the trail told of it or not, both alike.
    """
    recorder = audit_recorder.start(context, request, route.audit_action)
    if not recorder.action:
        return await _admit_and_handle(context, route, request, recorder)
    try:
        response = await _admit_and_handle(context, route, request, recorder)
    except trio.Cancelled:
        # A client that tries a password and leaves is recorded.
        if not recorder.actor.proven:
            _record_failure(context, route, request, recorder, audit_recorder.CLIENT_LEFT)
        raise
    except GpustackError as error:
        _record_failure(context, route, request, recorder, problem_of(error).status)
        raise
    except Exception:
        _record_failure(context, route, request, recorder, INTERNAL.status)
        raise
    if response.status >= 400 and recorder.action:  # an error that the handler made into a page
        _record_failure(context, route, request, recorder, response.status)
    elif not route.of_workers:
        await recorder.done(context, response.status)
    return response


def _record_failure(
    context: ApiContext, route: ApiRoute, request: ApiRequest, recorder: AuditRecorder, status: int
) -> None:
    if not recorder.actor.proven:
        audit_recorder.record_claimed_actor(recorder, context, credentials_of(request))
    if route.about is not None and is_whole(request.params.get("id", "")):
        record = context.store.snapshot.get(route.about, int(request.params["id"]))
        if record is not None:
            recorder.concerns(record)
    if not route.of_workers or status in audit_recorder.REFUSALS:
        recorder.ended(status)


async def _admit_and_handle(
    context: ApiContext, route: ApiRoute, request: ApiRequest, recorder: AuditRecorder
) -> ApiResponse:
    principal: Principal | None = None
    headers: tuple[tuple[str, str], ...] = ()
    if route.allow is not None:
        grant = await admit(
            context,
            request,
            allow=route.allow,
            scopes=route.scopes,
            before_password_change=route.before_password_change,
            found=recorder.acts,
        )
        principal, headers = grant.principal, grant.headers
        if request.hold is not None:
            request.hold.belongs_to(principal)
    document = None
    if route.body is not None:
        raw = await request.body()
        document = raw if route.reads_body else read_document(raw, route.body)
        # A body may take its time to come, and its sender may lose the right meanwhile.
        if principal is not None and principal.user_id is not None and not still_admitted(context, principal):
            raise Unauthorized
    call = ApiCall(context=context, request=request, principal=principal, document=document, audit=recorder)
    # The admission stands outside: renewing a login is no part of the recorded change.
    with recorder.with_the_change(recorded=bool(recorder.action) and not route.of_workers):
        response = await route.handler(call)
    return attrs.evolve(response, headers=(*headers, *response.headers)) if headers else response


def read_document(raw: bytes, shape: JsonShape) -> Any:
    """Read JSON by a shape. Raises ``BadRequest`` for what is not JSON in UTF-8, ``MalformedRequest`` naming every
    fault."""
    return read_value(read_json(raw), shape)


def read_json(raw: bytes) -> Any:
    """Raises ``BadRequest`` for what is not JSON in UTF-8."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON in UTF-8: {error}") from error


def read_value(value: Any, shape: JsonShape) -> Any:
    """Read a value of JSON by a shape. Raises ``MalformedRequest`` naming every fault."""
    faults: list[str] = []
    read = shape.read(value, "", faults)
    if faults:
        raise MalformedRequest(*(fault if fault[0] != ":" else f"body{fault}" for fault in faults))
    return read


def tagged(tag: str, routes: Iterable[ApiRoute]) -> tuple[ApiRoute, ...]:
    """The routes with ``tag``, where they have none of their own."""
    return tuple(attrs.evolve(route, tag=route.tag or tag) for route in routes)

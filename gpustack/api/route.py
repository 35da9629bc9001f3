"""A route: who may call it, what it takes and answers; and how a call of it is carried out, on any transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Protocol

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
from .context import ApiContext
from .parameter import QueryParameter
from .problems import INTERNAL, MalformedRequest, problem_of
from .request import ApiRequest, Query, is_whole
from .shape import JsonShape
from .wire import RenderContext, View, dumps

ADMIN = frozenset({Role.ADMIN})
PEOPLE = frozenset({Role.ADMIN, Role.USER})
WORKERS = frozenset({Role.WORKER})
WITH_ANYBODY = PEOPLE | {Role.ANYBODY}


class BodyStream(Protocol):
    """A body that is made as it is sent: entered before the first byte, left after the last or when the peer goes."""

    async def __aenter__(self) -> BodyStream: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object: ...

    def __aiter__(self) -> BodyStream: ...

    async def __anext__(self) -> bytes: ...


@attrs.frozen(kw_only=True)
class ApiResponse:
    """An answer: a JSON document, bytes, or a stream."""

    document: Any = None
    status: int = 200
    body: bytes | None = None
    stream: BodyStream | None = None
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def content(self) -> bytes:
        return dumps(self.document) if self.body is None else self.body


@attrs.frozen(kw_only=True)
class ApiCall:
    """What a handler works with."""

    context: ApiContext
    ask: ApiRequest
    principal: Principal | None
    document: Any = None
    """The body as the route's shape read it."""
    note: audit_recorder.AuditRecorder
    """What the audit trail is told of the call."""

    @property
    def caller(self) -> Principal:
        """The principal, on routes that have one."""
        assert self.principal is not None
        return self.principal

    @property
    def account(self) -> User:
        """The caller's own account. Raises ``NotFound`` when it is gone, ``Unauthorized`` for who has shown none:
        a page then asks for a login.
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
        return self.ask.query

    def look(self) -> RenderContext:
        return self.context.look()

    def number(self, name: str = "id") -> int:
        """An id from the path; what is no number names nothing."""
        text = self.ask.params[name]
        if not is_whole(text):
            raise NotFound(f"{text!r} is not an id")
        return int(text)


@attrs.frozen(kw_only=True)
class ApiRoute:
    """One method of one path. ``allow`` is ``None`` where anybody may call."""

    method: str
    path: str
    summary: str
    handler: Callable[[ApiCall], Awaitable[ApiResponse]]
    allow: frozenset[Role] | None = ADMIN
    tag: str = ""
    body: JsonShape | None = None
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
    """Of which an API key needs one, if it has not all."""
    slashes: bool = False
    """What the path's parameter stands for may hold slashes."""
    hidden: bool = False
    """Left out of the OpenAPI document; the table of routes has it."""
    action: str | None = None
    """What the audit trail calls it. If not given it follows from method and path; empty: it is not told of."""
    about: type[Record] | None = None
    """The class of what the path's id names."""

    @property
    def told_as(self) -> str:
        """``<what>.<verb>`` in the audit trail. Empty where that is not told of: reading changes nothing."""
        if self.action is not None:
            return self.action
        if self.method in SAFE_METHODS:
            return ""
        what, *rest = self.path.removeprefix("/v1").strip("/").split("/")
        verb = rest[-1] if rest and rest[-1] != "{id}" else _VERBS[self.method]
        return f"{what.removesuffix('s')}.{verb}"

    @property
    def of_workers(self) -> bool:
        """Workers say these all the time: only that somebody was not let in is told of."""
        return self.allow == WORKERS


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "update", "DELETE": "delete"}


async def carry_out(context: ApiContext, route: ApiRoute, ask: ApiRequest) -> ApiResponse:
    """Admit the caller, read the body, run the handler. Raises ``GpustackError`` for what the caller did wrong.

    Who calls is settled before a byte of the body is read. The audit trail is told of what changes something, and of
    every attempt. Cancelling it may leave a write done or not done, and the trail told or not told of it alike.
    """
    note = audit_recorder.begun(context, ask, route.told_as)
    if not note.action:
        return await _carry_out(context, route, ask, note)
    try:
        reply = await _carry_out(context, route, ask, note)
    except trio.Cancelled:
        # Who tries a password and leaves must not have left no trace.
        if not note.actor.proven:
            _tell_of_failure(context, route, ask, note, audit_recorder.LEFT)
        raise
    except GpustackError as error:
        _tell_of_failure(context, route, ask, note, problem_of(error).status)
        raise
    except Exception:
        _tell_of_failure(context, route, ask, note, INTERNAL.status)
        raise
    if reply.status >= 400 and note.action:  # a page that says what is wrong, for people
        _tell_of_failure(context, route, ask, note, reply.status)
    elif not route.of_workers:
        await note.done(context, reply.status)
    return reply


def _tell_of_failure(
    context: ApiContext, route: ApiRoute, ask: ApiRequest, note: audit_recorder.AuditRecorder, status: int
) -> None:
    if not note.actor.proven:
        audit_recorder.tries(note, context, credentials_of(ask))
    if route.about is not None and is_whole(ask.params.get("id", "")):
        record = context.store.snapshot.get(route.about, int(ask.params["id"]))
        if record is not None:
            note.concerns(record)
    if not route.of_workers or status in audit_recorder.REFUSALS:
        note.ended(status)


async def _carry_out(
    context: ApiContext, route: ApiRoute, ask: ApiRequest, note: audit_recorder.AuditRecorder
) -> ApiResponse:
    principal: Principal | None = None
    headers: tuple[tuple[str, str], ...] = ()
    if route.allow is not None:
        admitted = await admit(
            context,
            ask,
            allow=route.allow,
            scopes=route.scopes,
            before_password_change=route.before_password_change,
            told=note.acts,
        )
        principal, headers = admitted.principal, admitted.headers
        if ask.hold is not None:
            ask.hold.belongs_to(principal)
    document = None
    if route.body is not None:
        document = read_document(await ask.body(), route.body)
        # A body may take its time, and who sends it may be shut out meanwhile.
        if principal is not None and principal.user_id is not None and not still_admitted(context, principal):
            raise Unauthorized
    call = ApiCall(context=context, ask=ask, principal=principal, document=document, note=note)
    # Not around the above: to renew a login is no part of what is told of.
    with note.with_the_change(told=bool(note.action) and not route.of_workers):
        reply = await route.handler(call)
    return attrs.evolve(reply, headers=(*headers, *reply.headers)) if headers else reply


def read_document(raw: bytes, shape: JsonShape) -> Any:
    """JSON read by a shape. Raises ``BadRequest`` unless it is JSON in UTF-8, ``MalformedRequest`` for wrong fields."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON in UTF-8: {error}") from error
    faults: list[str] = []
    read = shape.read(value, "", faults)
    if faults:
        raise MalformedRequest(*(fault if fault[0] != ":" else f"body{fault}" for fault in faults))
    return read


def tagged(tag: str, routes: Iterable[ApiRoute]) -> tuple[ApiRoute, ...]:
    """The routes with a tag, where they have none."""
    return tuple(attrs.evolve(route, tag=route.tag or tag) for route in routes)

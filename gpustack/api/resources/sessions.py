"""Logins of browsers: people list and end their own, administrators those of others too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gpustack.domain.access import Session, User
from gpustack.errors import NotFound
from gpustack.server.account import end_sessions
from gpustack.store.transaction import Tx

from ..listing import PAGE_PARAMETERS, PageRange, page_document
from ..request import is_whole
from ..resource import document_view
from ..route import ADMIN, PEOPLE, ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Boolean
from ..wire import SESSION

_SHOWN = document_view("SessionSeen", SESSION, {"current": Boolean()}, SESSION.of)

_Whose = Callable[[ApiCall], int]


def _own(call: ApiCall) -> int:
    return call.account.id


def _named(call: ApiCall) -> int:
    user = call.snapshot.get(User, call.number())
    if user is None:
        raise NotFound(f"User {call.request.params['id']} does not exist")
    return user.id


def _of(call: ApiCall, user_id: int) -> Sequence[Session]:
    """The logins of an account that have not expired, the newest first."""
    now = call.context.clock()
    found = [
        session
        for session in call.snapshot.all(Session).values()
        if session.user_id == user_id and session.expires_at > now
    ]
    return sorted(found, key=lambda session: session.id, reverse=True)


def _list(whose: _Whose) -> Callable[[ApiCall], Awaitable[ApiResponse]]:
    async def handler(call: ApiCall) -> ApiResponse:
        found, context, page = _of(call, whose(call)), call.rendering(), PageRange.of(call.query)
        items = [
            {
                **SESSION.render(session, context, call.context.documents.faults),
                "current": session.id == call.caller.session_id,
            }
            for session in page.cut(found)
        ]
        return ApiResponse(document=page_document(items, page, len(found)))

    return handler


def _note(call: ApiCall, user_id: int | None) -> None:
    user = call.snapshot.get(User, user_id)
    if user is not None:
        call.audit.concerns(user)


def _end_all(whose: _Whose) -> Callable[[ApiCall], Awaitable[ApiResponse]]:
    async def handler(call: ApiCall) -> ApiResponse:
        user_id = whose(call)
        _note(call, user_id)
        await call.context.store.write(lambda tx: end_sessions(tx, user_id))
        return ApiResponse()

    return handler


def _end_one(whose: _Whose) -> Callable[[ApiCall], Awaitable[ApiResponse]]:
    async def handler(call: ApiCall) -> ApiResponse:
        user_id, text = whose(call), call.request.params["session"]
        _note(call, user_id)
        session_id = int(text) if is_whole(text) else None

        def work(tx: Tx) -> None:
            session = tx.get(Session, session_id)
            if session is None or session.user_id != user_id:
                raise NotFound(f"Session {text} does not exist")
            tx.delete(Session, session.id)

        await call.context.store.write(work)
        return ApiResponse()

    return handler


def _routes(path: str, whose: _Whose, words: str) -> tuple[ApiRoute, ...]:
    # Ending one's logins is possible before a password change: it is how one reacts to a stolen password.
    by: dict[str, Any] = {
        "allow": PEOPLE if whose is _own else ADMIN,
        "before_password_change": whose is _own,
    }
    return (
        ApiRoute(
            method="GET",
            path=path,
            summary=f"List the logins of {words}",
            handler=_list(whose),
            query=PAGE_PARAMETERS,
            answer=_SHOWN,
            listed=True,
            **by,
        ),
        ApiRoute(
            method="DELETE",
            path=path,
            summary=f"End all logins of {words}",
            handler=_end_all(whose),
            action="user.end-sessions",
            **by,
        ),
        ApiRoute(
            method="DELETE",
            path=f"{path}/{{session}}",
            summary=f"End one login of {words}",
            handler=_end_one(whose),
            action="user.end-session",
            **by,
        ),
    )


ROUTES = tagged(
    "users",
    (
        *_routes("/v1/users/me/sessions", _own, "one's own account"),
        *_routes("/v1/users/{id}/sessions", _named, "a user"),
    ),
)

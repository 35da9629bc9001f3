"""Signing in with a password, out again, and choosing another password."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import attrs

from gpustack.domain.access import Means, Session, User
from gpustack.errors import BadRequest, Forbidden, Invalid, Unauthorized
from gpustack.identity.passwords import check_complexity, hash_password, needs_rehash, verify_password
from gpustack.identity.sessions import cookie, find_session, make_session, no_cookie
from gpustack.store.transaction import Tx

from .access import credentials_of, lifetime
from .problems import Malformed
from .route import PEOPLE, Call, Reply, Route, read_document, tagged
from .shape import Document, Text

_CREDENTIALS = Document(
    name="Login",
    fields={"username": Text(), "password": Text(secret=True)},
    required=("username", "password"),
)
_MOST_SESSIONS = 100
"""Logins of one account: beyond, the one that would end first ends. Nobody fills the memory by logging in."""
_WRONG = "Incorrect username or password"


async def _login(call: Call) -> Reply:
    # A program sends no Origin, and its form is welcome; a page of another site must not log its visitor in.
    if attrs.evolve(credentials_of(call.ask), content_type=None).may_be_another_site:
        raise Forbidden("This login comes from a page of another site")
    given = await _given(call)
    user = call.snapshot.find(User, username=given["username"])
    usable = user if user is not None and user.is_active and user.hashed_password else None
    hashed = usable.hashed_password if usable else None
    with call.context.login_limiter.attempt(call.ask.peer, given["username"]) as attempt:
        # Without a user the same time is spent: it tells nobody which names exist.
        if not await verify_password(hashed, given["password"]) or usable is None:
            attempt.failed()
            raise Unauthorized(_WRONG)
        attempt.succeeded()
    again = await hash_password(given["password"]) if hashed and needs_rehash(hashed) else None
    return Reply(document=None, headers=await _new_session(call, usable, rehashed=again))


async def _given(call: Call) -> dict[str, Any]:
    raw = await call.ask.body()
    kind = call.ask.text(b"content-type").partition(";")[0].strip().lower()
    if kind == "application/json":
        read: dict[str, Any] = read_document(raw, _CREDENTIALS)
        return read
    if kind not in ("application/x-www-form-urlencoded", ""):
        raise BadRequest(
            "Send username and password as a form (application/x-www-form-urlencoded) or as JSON"
        )
    try:
        fields = parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise BadRequest("The form cannot be read") from error
    faults = [f"{name}: is missing" for name in ("username", "password") if name not in fields]
    if faults:
        raise Malformed(*faults)
    return {name: values[-1] for name, values in fields.items()}


async def _new_session(call: Call, user: User, *, rehashed: str | None = None) -> tuple[tuple[str, str], ...]:
    """A fresh login in place of the one the browser had, if any. Logins that are over are swept out with it."""
    context, now = call.context, call.context.clock()
    token, session = make_session(
        user.id, keys=context.keys, now=now, rng=context.rng, lifetime=lifetime(context)
    )
    old = find_session(call.snapshot, credentials_of(call.ask).cookie, keys=context.keys, now=now)

    def work(tx: Tx) -> None:
        for known in list(tx.all(Session).values()):
            if known.expires_at <= now or (old is not None and known.id == old.id):
                tx.delete(Session, known.id)
        kept = sorted(
            (s for s in tx.all(Session).values() if s.user_id == user.id), key=lambda s: s.expires_at
        )
        for known in kept[: max(0, len(kept) + 1 - _MOST_SESSIONS)]:
            tx.delete(Session, known.id)
        tx.insert(session)
        if rehashed is not None:
            tx.change(User, user.id, hashed_password=rehashed)

    await context.store.write(work)
    return (("Set-Cookie", cookie(token, secure=context.rules.tls, lifetime=lifetime(context))),)


async def _logout(call: Call) -> Reply:
    credentials, context = credentials_of(call.ask), call.context
    if credentials.may_be_another_site and credentials.cookie is not None:
        raise Forbidden("This logout comes from a page of another site")
    session = find_session(call.snapshot, credentials.cookie, keys=context.keys, now=context.clock())
    if session is not None:
        await context.store.write(lambda tx: _end(tx, session.id))
    return Reply(document=None, headers=(("Set-Cookie", no_cookie(secure=context.rules.tls)),))


def _end(tx: Tx, session_id: int) -> None:
    if tx.get(Session, session_id) is not None:
        tx.delete(Session, session_id)


def end_sessions(tx: Tx, user_id: int) -> None:
    """Log a user out everywhere: the account's rights or password have changed."""
    for session in list(tx.all(Session).values()):
        if session.user_id == user_id:
            tx.delete(Session, session.id)


async def _update_password(call: Call) -> Reply:
    user = call.snapshot.get(User, call.caller.user_id)
    if user is None or not user.hashed_password:
        raise BadRequest("This account has no password here: it is proved by another party")
    with call.context.login_limiter.attempt(call.ask.peer, user.username) as attempt:
        if not await verify_password(user.hashed_password, call.document["current_password"]):
            attempt.failed()
            raise Invalid("Incorrect current password")
        attempt.succeeded()
    hashed = await hash_chosen(call.document["new_password"])

    def work(tx: Tx) -> None:
        tx.change(User, user.id, hashed_password=hashed, require_password_change=False)
        end_sessions(tx, user.id)

    await call.context.store.write(work)
    if call.caller.means is Means.COOKIE:
        return Reply(document=None, headers=await _new_session(call, user))
    return Reply(document=None)


async def hash_chosen(password: str) -> str:
    """The hash of a password that somebody chose. Raises ``Invalid`` when it is too simple."""
    if faults := check_complexity(password):
        raise Invalid(*faults)
    return await hash_password(password)


ROUTES = tagged(
    "auth",
    (
        Route(
            method="POST",
            path="/auth/login",
            summary="Sign in with a password; the answer sets the cookie gpustack_session",
            handler=_login,
            allow=None,
        ),
        Route(
            method="POST",
            path="/auth/logout",
            summary="Sign out: the login ends on the server too",
            handler=_logout,
            allow=None,
        ),
        Route(
            method="POST",
            path="/auth/update-password",
            summary="Choose another password; all other logins of the account end",
            handler=_update_password,
            allow=PEOPLE,
            before_password_change=True,
            body=Document(
                name="PasswordUpdate",
                fields={"current_password": Text(secret=True), "new_password": Text(secret=True)},
                required=("current_password", "new_password"),
            ),
        ),
    ),
)

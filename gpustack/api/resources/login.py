"""Logins of browsers: signing in with a password, out again, and choosing another password."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import attrs

from gpustack.domain.access import AuthMethod, Session, User, UserSource
from gpustack.errors import BadRequest, Conflict, Forbidden, Invalid, Unauthorized
from gpustack.identity.passwords import (
    SHORTEST,
    check_complexity,
    hash_password,
    needs_rehash,
    verify_password,
)
from gpustack.identity.sessions import cookie, find_session, make_session, no_cookie
from gpustack.server.account import end_sessions
from gpustack.store.transaction import Tx

from ..access import LOGIN_PATH, credentials_of, lifetime
from ..page import onward, redirect, wants_page
from ..problems import MalformedRequest
from ..route import PEOPLE, ApiCall, ApiResponse, ApiRoute, read_document, tagged
from ..shape import Document, Text

log = logging.getLogger(__name__)

_CREDENTIALS = Document(
    name="Login",
    fields={"username": Text(), "password": Text(secret=True)},
    required=("username", "password"),
)
_WRONG = "Incorrect username or password"
_MOST_SESSIONS = 100
"""Logins of one account. One more ends the one that would end first, so that nobody fills the memory."""


async def _login(call: ApiCall) -> ApiResponse:
    # A program sends no Origin, and may send a form; a page of another site must not log its visitor in here.
    if attrs.evolve(credentials_of(call.request), content_type=None).may_be_another_site:
        raise Forbidden("This login comes from a page of another site")
    given = await _given(call)
    user = call.snapshot.find(User, username=given["username"])
    usable = user if user is not None and user.is_active and user.hashed_password else None
    hashed = usable.hashed_password if usable else None
    call.audit.tries(user, "password")
    with call.context.access.logins.passwords.attempt(call.request.peer, given["username"]) as attempt:
        # Without a user the same time is spent, so that it does not tell which names exist.
        if not await verify_password(hashed, given["password"]) or usable is None:
            attempt.failed()
            raise Unauthorized(_WRONG)
        attempt.succeeded()
    if len(given["password"]) < SHORTEST:
        log.warning("A password has fewer than %d characters: user=%s", SHORTEST, usable.username)
    again = await hash_password(given["password"]) if hashed and needs_rehash(hashed) else None

    def who(tx: Tx) -> User:
        if not _is_as_verified(tx, usable):
            raise Unauthorized(_WRONG)
        return usable if again is None else tx.change(User, usable.id, hashed_password=again)

    return ApiResponse(document=None, headers=await open_session(call, who))


def _is_as_verified(tx: Tx, user: User) -> bool:
    """Verifying takes a moment, in which the account may have been disabled or given another password."""
    now = tx.get(User, user.id)
    return now is not None and now.is_active and now.hashed_password == user.hashed_password


async def _given(call: ApiCall) -> dict[str, Any]:
    raw = await call.request.body()
    kind = call.request.text(b"content-type").partition(";")[0].strip().lower()
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
        raise MalformedRequest(*faults)
    return {name: values[-1] for name, values in fields.items()}


async def _logout(call: ApiCall) -> ApiResponse:
    credentials, context = credentials_of(call.request), call.context
    if credentials.may_be_another_site and credentials.cookie is not None:
        raise Forbidden("This logout comes from a page of another site")
    session = await _close_session(call)
    headers = (("Set-Cookie", no_cookie(secure=context.access.rules.tls)),)
    provider = context.sign_on.provider
    away = None if session is None or provider is None else provider.logout_url(session)
    if wants_page(call.request):
        return redirect("/", headers) if away is None else onward(away, "Signing out", headers)
    # A program may follow the URL to end the login at the provider too.
    return ApiResponse(document=None if away is None else {"logout_url": away}, headers=headers)


async def _update_password(call: ApiCall) -> ApiResponse:
    user = call.snapshot.get(User, call.caller.user_id)
    if user is None or not user.hashed_password:
        raise BadRequest("This account has no password here: it is proved by another party")
    call.audit.concerns(user)
    with call.context.access.logins.passwords.attempt(call.request.peer, user.username) as attempt:
        if not await verify_password(user.hashed_password, call.document["current_password"]):
            attempt.failed()
            raise Invalid("Incorrect current password")
        attempt.succeeded()
    if call.document["new_password"] == call.document["current_password"]:
        raise Invalid("The new password must not be the current one")
    hashed = await hash_chosen(call.document["new_password"])

    def work(tx: Tx) -> User:
        if not _is_as_verified(tx, user):
            raise Conflict("The password was changed meanwhile: sign in again")
        end_sessions(tx, user.id)
        return tx.change(User, user.id, hashed_password=hashed, require_password_change=False)

    if call.caller.means is AuthMethod.COOKIE:
        return ApiResponse(document=None, headers=await open_session(call, work))
    await call.context.store.write(work)
    return ApiResponse(document=None)


async def hash_chosen(password: str) -> str:
    """The hash of a password that somebody has chosen. Raises ``Invalid`` when it is too simple."""
    if faults := check_complexity(password):
        raise Invalid(*faults)
    return await hash_password(password)


# --- sessions, however their owner was proved


async def open_session(
    call: ApiCall,
    who: Callable[[Tx], User],
    *,
    source: UserSource = UserSource.LOCAL,
    logout_hint: str | None = None,
) -> tuple[tuple[str, str], ...]:
    """Log the browser in, in place of the login that it had: the headers that give it the cookie.

    ``who`` finds the account in the same transaction; what it raises leaves everything as it was. Logins that have
    expired are deleted with it.
    """
    context, now = call.context, call.context.clock()
    token, session = make_session(0, keys=context.keys, now=now, rng=context.rng, lifetime=lifetime(context))
    old = find_session(call.snapshot, credentials_of(call.request).cookie, keys=context.keys, now=now)

    signs_in = not call.audit.actor.proven
    if signs_in:
        call.audit.action = "auth.login"

    def work(tx: Tx) -> None:
        user = who(tx)
        if signs_in:
            call.audit.signs_in(user, "password" if source is UserSource.LOCAL else source.value.lower())
        for known in list(tx.all(Session).values()):
            if known.expires_at <= now or (old is not None and known.id == old.id):
                tx.delete(Session, known.id)
        kept = sorted(
            (s for s in tx.all(Session).values() if s.user_id == user.id), key=lambda s: s.expires_at
        )
        for known in kept[: max(0, len(kept) + 1 - _MOST_SESSIONS)]:
            tx.delete(Session, known.id)
        tx.insert(attrs.evolve(session, user_id=user.id, source=source, logout_hint=logout_hint))

    with call.audit.with_the_change():
        await context.store.write(work)
    return (("Set-Cookie", cookie(token, secure=context.access.rules.tls, lifetime=lifetime(context))),)


async def _close_session(call: ApiCall) -> Session | None:
    """Delete the browser's login: what it was, or ``None`` where there is none."""
    context = call.context
    session = find_session(
        call.snapshot, credentials_of(call.request).cookie, keys=context.keys, now=context.clock()
    )
    if session is None:
        call.audit.action = ""  # nothing happens that the audit trail should hold
        return None
    user = call.snapshot.get(User, session.user_id)
    if user is not None:
        call.audit.signs_in(user, "cookie")

    def work(tx: Tx) -> None:
        if tx.get(Session, session.id) is not None:
            tx.delete(Session, session.id)

    await context.store.write(work)
    return session


ROUTES = tagged(
    "auth",
    (
        ApiRoute(
            method="POST",
            path=LOGIN_PATH,
            summary="Sign in with a password; the answer sets the cookie gpustack_session",
            handler=_login,
            allow=None,
        ),
        ApiRoute(
            method="POST",
            path="/auth/logout",
            summary="Sign out: the login ends on the server too",
            handler=_logout,
            allow=None,
        ),
        ApiRoute(
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

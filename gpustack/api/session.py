"""Starting and ending the login of a browser, however its owner was proved."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from gpustack.domain.access import Session, User, UserSource
from gpustack.identity.sessions import cookie, find_session, make_session
from gpustack.store.transaction import Tx

from .access import credentials_of, lifetime
from .route import ApiCall

_MOST = 100
"""Logins of one account: beyond, the one that would end first ends. Nobody fills the memory by logging in."""


async def open_session(
    call: ApiCall,
    who: Callable[[Tx], User],
    *,
    source: UserSource = UserSource.LOCAL,
    logout_hint: str | None = None,
) -> tuple[tuple[str, str], ...]:
    """A fresh login in place of the one the browser had, if any: the headers that give it to the browser.

    ``who`` finds the account in the same transaction; what it raises leaves everything as it was. Logins that are over
    are swept out with it.
    """
    context, now = call.context, call.context.clock()
    token, session = make_session(0, keys=context.keys, now=now, rng=context.rng, lifetime=lifetime(context))
    old = find_session(call.snapshot, credentials_of(call.ask).cookie, keys=context.keys, now=now)

    signs_in = not call.note.actor.proven
    if signs_in:
        call.note.action = "auth.login"

    def work(tx: Tx) -> None:
        user = who(tx)
        if signs_in:
            call.note.signs_in(user, "password" if source is UserSource.LOCAL else source.value.lower())
        for known in list(tx.all(Session).values()):
            if known.expires_at <= now or (old is not None and known.id == old.id):
                tx.delete(Session, known.id)
        kept = sorted(
            (s for s in tx.all(Session).values() if s.user_id == user.id), key=lambda s: s.expires_at
        )
        for known in kept[: max(0, len(kept) + 1 - _MOST)]:
            tx.delete(Session, known.id)
        tx.insert(attrs.evolve(session, user_id=user.id, source=source, logout_hint=logout_hint))

    with call.note.with_the_change():
        await context.store.write(work)
    return (("Set-Cookie", cookie(token, secure=context.rules.tls, lifetime=lifetime(context))),)


async def close_session(call: ApiCall) -> Session | None:
    """End the browser's login on the server; what it was, or ``None``."""
    context = call.context
    session = find_session(
        call.snapshot, credentials_of(call.ask).cookie, keys=context.keys, now=context.clock()
    )

    def work(tx: Tx) -> None:
        if session is not None and tx.get(Session, session.id) is not None:
            tx.delete(Session, session.id)

    if session is None:
        call.note.action = ""  # nobody was logged in: the audit trail has nothing to tell of
        return None
    user = call.snapshot.get(User, session.user_id)
    if user is not None:
        call.note.signs_in(user, "cookie")
    await context.store.write(work)
    return session

"""Signing in by another party: the login under way, its one end, and the account that comes of it.

A flow is ``start`` (the browser leaves with a state and a cookie), then ``take`` (it is back, the same browser, once)
and ``finish``. A party that sends browsers back by a POST from its own site gets no cookie along: there ``under_way``
finds the login by its state alone, ``hold`` keeps what was proved under a new state, and the browser comes with its
cookie to ``take`` by a redirect.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import attrs

from gpustack.domain.access import SignIn, UserSource
from gpustack.errors import BadRequest, GpustackError, NotFound
from gpustack.identity.person import ExternalPerson
from gpustack.identity.sign_in import begin, find, is_of_browser, new_state, no_cookie
from gpustack.server.account import account_of
from gpustack.store.attached_write import alone
from gpustack.store.transaction import Tx

from .audit_recorder import Actor
from .page import PageLink, page, redirect, wants_page
from .problems import problem_of
from .route import ApiCall, ApiResponse
from .session import open_session

log = logging.getLogger(__name__)

_REFUSED = frozenset({400, 403, 429})
_TOLD = frozenset({403, 503})
_MOST = 10_000
"""Logins under way; beyond, the oldest is forgotten: nobody fills the memory by beginning."""
_GONE = (
    "This sign-in is not under way any more: it was finished, took longer than ten minutes, or began in another "
    "browser. Please sign in again"
)


def shown(
    handler: Callable[[ApiCall], Awaitable[ApiResponse]], source: UserSource
) -> Callable[[ApiCall], Awaitable[ApiResponse]]:
    """A handler of signing in, whose errors a person sees as a page with a way to try again, and a program as JSON.

    The log and the audit trail are told who was not let in. The route must have no action of its own.
    """
    again = PageLink("Sign in again", f"/auth/{source.lower()}/login")

    async def told(call: ApiCall) -> ApiResponse:
        try:
            return await handler(call)
        except GpustackError as error:
            problem = problem_of(error)
            # A stranger can have any number of the others.
            level = logging.WARNING if problem.status in _TOLD else logging.DEBUG
            log.log(level, "Sign-in failed: by=%s from=%s: %s", source, call.ask.peer, error)
            if problem.status in _REFUSED:
                call.note.action = "auth.login"
                call.note.actor = Actor(means=source.lower())
                call.note.ended(problem.status)
                call.note.action = ""
            if not wants_page(call.ask):
                raise
            headers = tuple(problem.headers.items())
            return page(
                "Sign-in failed", problem.message, links=(again,), status=problem.status, headers=headers
            )

    return told


def refuse_unless(call: ApiCall, source: UserSource) -> None:
    """Raise ``NotFound`` where people do not sign in by that kind of party."""
    party = call.context.sign_on.party
    if party is None or party.source is not source:
        raise NotFound(f"Nobody signs in by {source} here: it is not configured")


async def start(call: ApiCall, source: UserSource, *, secret: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Begin a login: the state for the other party, and the headers for the browser.

    ``secret`` is what the answer must agree with. ``?next=`` is where the browser wants to be afterwards. Raises
    ``TooManyRequests``.
    """
    context = call.context
    context.sign_in_pace.step(call.ask.peer)
    begun = begin(
        source,
        secret=secret,
        next_path=call.query.one("next"),
        keys=context.keys,
        now=context.clock(),
        rng=context.rng,
        secure=context.rules.tls,
    )

    def work(tx: Tx) -> None:
        kept = sorted(tx.all(SignIn).values(), key=lambda one: one.id)
        over = [one for one in kept if one.expires_at <= tx.now]
        left = len(kept) - len(over)
        over += [one for one in kept if one.expires_at > tx.now][: max(0, left + 1 - _MOST)]
        for one in over:
            tx.delete(SignIn, one.id)
        tx.insert(begun.record)

    with alone():
        await context.store.write(work)
    return begun.state, (("Set-Cookie", begun.cookie),)


async def under_way(call: ApiCall, source: UserSource, state: str | None) -> SignIn:
    """The login that a state belongs to, whoever shows it. Raises ``BadRequest`` when there is none."""
    context = call.context
    for may_have_begun_at_another_server in (True, False):
        found = find(call.snapshot, source, state, keys=context.keys, now=context.clock())
        if found is not None:
            return found
        if not may_have_begun_at_another_server or not await context.store.refresh():
            break
    raise BadRequest(_GONE)


async def take(call: ApiCall, source: UserSource, state: str | None) -> SignIn:
    """The same, of this browser, and for once: it is under way no more. Raises ``BadRequest``."""
    found = await under_way(call, source, state)
    if not is_of_browser(found, call.ask.text(b"cookie"), keys=call.context.keys):
        raise BadRequest(_GONE)

    def work(tx: Tx) -> bool:
        known = tx.get(SignIn, found.id)
        if known is not None and known.state_hash == found.state_hash:
            tx.delete(SignIn, found.id)
            return True
        return False  # two requests at once: the other has it

    with alone():
        taken = await call.context.store.write(work)
    if not taken:
        raise BadRequest(_GONE)
    return found


async def hold(
    call: ApiCall, sign_in: SignIn, secret: str, *, also: Callable[[Tx], None] = lambda tx: None
) -> str:
    """Keep ``secret`` for the same browser in place of what was kept: the new state; the former is good no more.

    ``also`` is done in the same transaction; what it raises leaves everything as it was. Raises ``BadRequest`` when
    the login is not under way any more.
    """
    context = call.context
    state = new_state(context.rng)

    def work(tx: Tx) -> bool:
        known = tx.get(SignIn, sign_in.id)
        if known is None or known.state_hash != sign_in.state_hash:
            return False
        also(tx)
        tx.update(attrs.evolve(known, state_hash=context.keys.sign_in_hash(state), secret=secret))
        return True

    with alone():
        held = await context.store.write(work)
    if not held:
        raise BadRequest(_GONE)
    return state


async def finish(
    call: ApiCall, sign_in: SignIn, person: ExternalPerson, *, logout_hint: str | None = None
) -> ApiResponse:
    """Log the browser in as the person, and send it where it wanted to be. Raises ``Forbidden``."""
    context = call.context
    headers = await open_session(
        call,
        lambda tx: account_of(tx, person, context.sign_on.admin_groups),
        source=person.source,
        logout_hint=logout_hint,
    )
    log.info("Signed in: user=%s by=%s from=%s", person.username, person.source, call.ask.peer)
    gone = ("Set-Cookie", no_cookie(sign_in, secure=context.rules.tls))
    return redirect(sign_in.next_path, (*headers, gone))

"""Signing in at an identity provider: one flow for every protocol.

A browser leaves with a state and a cookie (``login``) and comes back with the provider's answer (``callback``); the
login under way is found by the state, checked by the cookie, and ended. Where the provider's page posts the answer,
browsers send no cookie of ours along: there the answer alone is checked, what it proves is kept under a new state, and
a redirect to ``finish`` brings the browser with its cookie. See the README.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import attrs

from gpustack.domain.access import SignIn, UsedAssertion, UserSource
from gpustack.errors import BadRequest, Forbidden, GpustackError, NotFound
from gpustack.identity.person import VerifiedIdentity, pack, unpack
from gpustack.identity.sign_in import begin, find, is_of_browser, new_state, no_cookie
from gpustack.server.account import account_of
from gpustack.store.attached_write import detach
from gpustack.store.transaction import Tx

from .audit_recorder import Actor
from .context import IdentityProvider
from .page import PageLink, page, redirect, wants_page
from .problems import problem_of
from .resources.login import open_session
from .route import ApiCall, ApiResponse, ApiRoute, tagged

log = logging.getLogger(__name__)

_REFUSED = frozenset({400, 403, 429})
"""Statuses that the audit trail records."""
_WARNED_OF = frozenset({403, 503})
"""Statuses that are logged as warnings: anybody can provoke any number of the others."""
_MOST = 10_000
"""Logins under way. One more replaces the oldest, so that nobody fills the memory by starting logins."""
_NOT_UNDER_WAY = (
    "This sign-in is not under way any more: it was finished, took longer than ten minutes, or began in another "
    "browser. Please sign in again"
)


@attrs.frozen(kw_only=True)
class SignOnProtocol:
    """What one protocol adds to the flow."""

    source: UserSource
    title: str
    """As the summaries of its routes name it."""
    state_field: str
    """The field of the answer that brings our state back."""
    read_answer: Callable[[ApiCall], Awaitable[Mapping[str, str]]]
    """The fields of the answer that a request brings. Raises ``BadRequest``."""
    callback: str
    """The summary of the route that takes the answer."""
    is_posted: bool = False
    """The answer comes by a form that the provider's page posts, without our cookie."""

    @property
    def path(self) -> str:
        return f"/auth/{self.source.lower()}"


def sign_on_routes(protocol: SignOnProtocol, *more: ApiRoute) -> tuple[ApiRoute, ...]:
    """The routes of a protocol. Without an action of their own: the flow itself tells the audit trail of a login."""
    routes = [
        ApiRoute(
            method="GET",
            path=f"{protocol.path}/login",
            summary=f"Send a browser to sign in by {protocol.title}; ?next= is the page here to come back to",
            handler=_with_fault_page(_login, protocol),
            allow=None,
            hidden=True,
        ),
        ApiRoute(
            method="POST" if protocol.is_posted else "GET",
            path=f"{protocol.path}/callback",
            summary=protocol.callback,
            handler=_with_fault_page(_callback, protocol),
            allow=None,
            action="",
            hidden=True,
        ),
    ]
    if protocol.is_posted:
        routes.append(
            ApiRoute(
                method="GET",
                path=f"{protocol.path}/finish",
                summary="Where that browser goes next, to be logged in",
                handler=_with_fault_page(_finish, protocol),
                allow=None,
                hidden=True,
            )
        )
    return tagged("auth", (*routes, *more))


def provider_of(call: ApiCall, source: UserSource) -> IdentityProvider:
    """The identity provider. Raises ``NotFound`` where people do not sign in by that protocol."""
    provider = call.context.sign_on.provider
    if provider is None or provider.source is not source:
        raise NotFound(f"Nobody signs in by {source} here: it is not configured")
    return provider


# --- the handlers


async def _login(call: ApiCall, protocol: SignOnProtocol) -> ApiResponse:
    request = await provider_of(call, protocol.source).request(call.context.rng)
    state, headers = await _start(call, protocol.source, request.secret)
    return redirect(await request.url(state), headers)


async def _callback(call: ApiCall, protocol: SignOnProtocol) -> ApiResponse:
    provider, context = provider_of(call, protocol.source), call.context
    answer = await protocol.read_answer(call)
    state = answer.get(protocol.state_field)
    if not protocol.is_posted:
        sign_in = await _take(call, protocol.source, state)
        return await _log_in(call, sign_in, await provider.prove(answer, sign_in.secret, context.clock))
    sign_in = await _under_way(call, protocol.source, state)
    # A refused answer leaves its login under way: without a limit one login would pay for any number of checks.
    context.access.logins.answers.step(call.request.peer)
    proven = await provider.prove(answer, sign_in.secret, context.clock)
    return redirect(f"{protocol.path}/finish?state={await _keep(call, sign_in, proven)}")


async def _finish(call: ApiCall, protocol: SignOnProtocol) -> ApiResponse:
    provider_of(call, protocol.source)
    sign_in = await _take(call, protocol.source, call.query.one("state"))
    person = unpack(sign_in.secret)
    if person is None:
        raise BadRequest("This sign-in has no answer of the identity provider yet")
    return await _log_in(call, sign_in, VerifiedIdentity(person))


def _with_fault_page(
    handler: Callable[[ApiCall, SignOnProtocol], Awaitable[ApiResponse]], protocol: SignOnProtocol
) -> Callable[[ApiCall], Awaitable[ApiResponse]]:
    """The handler for a route: a person sees its errors as a page with a link to try again, a program as JSON.

    The log and the audit trail are told here of everybody who is refused.
    """
    again, means = PageLink("Sign in again", f"{protocol.path}/login"), protocol.source.lower()

    async def handle(call: ApiCall) -> ApiResponse:
        try:
            return await handler(call, protocol)
        except GpustackError as error:
            problem = problem_of(error)
            level = logging.WARNING if problem.status in _WARNED_OF else logging.DEBUG
            log.log(level, "Sign-in failed: by=%s from=%s: %s", protocol.source, call.request.peer, error)
            if problem.status in _REFUSED:
                call.audit.action = "auth.login"
                call.audit.actor = Actor(means=means)
                call.audit.ended(problem.status)
                call.audit.action = ""
            if not wants_page(call.request):
                raise
            headers = tuple(problem.headers.items())
            return page(
                "Sign-in failed", problem.message, links=(again,), status=problem.status, headers=headers
            )

    return handle


# --- the login under way


async def _start(call: ApiCall, source: UserSource, secret: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Store a login under way: its state for the provider, and the headers for the browser.

    ``secret`` is what the answer must agree with. ``?next=`` is the page to come back to. Raises ``TooManyRequests``.
    """
    context = call.context
    context.access.logins.starts.step(call.request.peer)
    started = begin(
        source,
        secret=secret,
        next_path=call.query.one("next"),
        keys=context.keys,
        now=context.clock(),
        rng=context.rng,
        secure=context.access.rules.tls,
    )

    def work(tx: Tx) -> None:
        kept = sorted(tx.all(SignIn).values(), key=lambda one: one.id)
        lasting = [one for one in kept if one.expires_at > tx.now]
        ended = [one for one in kept if one.expires_at <= tx.now]
        for one in (*ended, *lasting[: max(0, len(lasting) + 1 - _MOST)]):
            tx.delete(SignIn, one.id)
        tx.insert(started.record)

    with detach():
        await context.store.write(work)
    return started.state, (("Set-Cookie", started.cookie),)


async def _under_way(call: ApiCall, source: UserSource, state: str | None) -> SignIn:
    """The login under way that a state belongs to, whoever brings it. Raises ``BadRequest`` when there is none."""
    context = call.context
    for may_be_new_elsewhere in (True, False):  # started a moment ago, at another server
        found = find(call.snapshot, source, state, keys=context.keys, now=context.clock())
        if found is not None:
            return found
        if not may_be_new_elsewhere or not await context.store.refresh():
            break
    raise BadRequest(_NOT_UNDER_WAY)


async def _take(call: ApiCall, source: UserSource, state: str | None) -> SignIn:
    """End the login under way of this browser. Raises ``BadRequest`` when there is none: each is taken once."""
    found = await _under_way(call, source, state)
    if not is_of_browser(found, call.request.text(b"cookie"), keys=call.context.keys):
        raise BadRequest(_NOT_UNDER_WAY)

    def work(tx: Tx) -> bool:
        known = tx.get(SignIn, found.id)
        if known is not None and known.state_hash == found.state_hash:
            tx.delete(SignIn, found.id)
            return True
        return False  # of two requests at once the other has it

    with detach():
        taken = await call.context.store.write(work)
    if not taken:
        raise BadRequest(_NOT_UNDER_WAY)
    return found


async def _keep(call: ApiCall, sign_in: SignIn, proven: VerifiedIdentity) -> str:
    """Keep who was proved for the same browser: the new state; the former one is void.

    Raises ``BadRequest`` when the login is not under way any more, ``Forbidden`` for an assertion that was used before.
    """
    context = call.context
    state = new_state(context.rng)

    def work(tx: Tx) -> bool:
        known = tx.get(SignIn, sign_in.id)
        if known is None or known.state_hash != sign_in.state_hash:
            return False
        if proven.assertion is not None:
            use_once(tx, proven.assertion)
        kept = pack(proven.person)
        tx.update(attrs.evolve(known, state_hash=context.keys.sign_in_hash(state), secret=kept))
        return True

    with detach():
        kept = await context.store.write(work)
    if not kept:
        raise BadRequest(_NOT_UNDER_WAY)
    return state


def use_once(tx: Tx, assertion: UsedAssertion) -> None:
    """Record the use of an assertion, and delete expired records. Raises ``Forbidden`` the second time.

    Of several servers that are given the same one at once, the database's unique index lets one record it.
    """
    for known in list(tx.all(UsedAssertion).values()):
        if known.expires_at <= tx.now:
            tx.delete(UsedAssertion, known.id)
    if tx.find(UsedAssertion, assertion_hash=assertion.assertion_hash) is not None:
        raise Forbidden("The identity provider's answer is refused: it was used before")
    tx.insert(assertion)


async def _log_in(call: ApiCall, sign_in: SignIn, proven: VerifiedIdentity) -> ApiResponse:
    """Log the browser in as the person, and send it to the page it came from. Raises ``Forbidden``."""
    context, person = call.context, proven.person
    headers = await open_session(
        call,
        lambda tx: account_of(tx, person, context.sign_on.admin_groups),
        source=person.source,
        logout_hint=proven.logout_hint,
    )
    log.info("Signed in: user=%s by=%s from=%s", person.username, person.source, call.request.peer)
    cleared = ("Set-Cookie", no_cookie(sign_in, secure=context.access.rules.tls))
    return redirect(sign_in.next_path, (*headers, cleared))

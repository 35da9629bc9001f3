"""The pages of a browser: the web console, or where that was not built who is signed in and how to sign in and out."""

from __future__ import annotations

from gpustack.domain.access import User
from gpustack.errors import NotFound
from gpustack.identity.sessions import find_session

from ..access import credentials_of
from ..console_pages import CONSOLE_ROUTES, is_built, shell
from ..page import PageLink, page, wants_page
from ..route import ApiCall, ApiResponse, ApiRoute, tagged


async def _home(call: ApiCall) -> ApiResponse:
    if not wants_page(call.request):
        raise NotFound(
            "At / there is a page for browsers; the API begins at /v1, and its documentation is at /docs"
        )
    if is_built(call.context):
        return shell(call)
    context, cookie = call.context, credentials_of(call.request).cookie
    user = _signed_in(call, cookie)
    if user is None and cookie is not None and await context.store.refresh():
        user = _signed_in(call, cookie)  # signed in a moment ago, at another server
    docs = (PageLink("Documentation of the API", "/docs"),) if context.server.docs else ()
    if user is not None:
        role = "an administrator" if user.is_admin else "a user"
        links = (PageLink("Sign out", "/auth/logout", posts=True),)
        return page("GPUStack", f"You are signed in as {user.username}, {role}.", links=(*links, *docs))
    provider = context.sign_on.provider
    if provider is None:
        return page("GPUStack", "This server is used by programs, and by the command gpustack.", links=docs)
    sign_in = PageLink(f"Sign in by {provider.source}", f"/auth/{provider.source.lower()}/login")
    return page("GPUStack", "You are not signed in.", links=(sign_in, *docs))


def _signed_in(call: ApiCall, cookie: str | None) -> User | None:
    context = call.context
    session = find_session(call.snapshot, cookie, keys=context.keys, now=context.clock())
    user = None if session is None else call.snapshot.get(User, session.user_id)
    return user if user is not None and user.is_active else None


ROUTES = tagged(
    "server",
    (
        ApiRoute(
            method="GET",
            path="/",
            summary="The web console, for browsers",
            handler=_home,
            allow=None,
            hidden=True,
        ),
        *CONSOLE_ROUTES,
    ),
)

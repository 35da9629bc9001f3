"""Signing in by OpenID Connect: the way there, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from gpustack.domain.access import UserSource
from gpustack.errors import BadRequest

from ..page import redirect
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..sign_on import finish, refuse_unless, shown, start, take

if TYPE_CHECKING:  # it costs where nobody signs in so
    from gpustack.identity.oidc.provider import OidcProvider

_FIELDS = ("state", "code", "iss", "error", "error_description")


async def _login(call: ApiCall) -> ApiResponse:
    provider = _provider(call)
    await provider.ready()  # before anything is kept for it
    secret = provider.secret(call.context.rng)
    state, headers = await start(call, UserSource.OIDC, secret=secret)
    return redirect(await provider.authorization_url(state, secret), headers)


async def _callback(call: ApiCall) -> ApiResponse:
    provider = _provider(call)
    answer = _answer(call)
    sign_in = await take(call, UserSource.OIDC, answer.get("state"))
    proved = await provider.prove(answer, sign_in.secret)
    return await finish(call, sign_in, proved.person, logout_hint=proved.logout_hint)


def _provider(call: ApiCall) -> OidcProvider:
    refuse_unless(call, UserSource.OIDC)
    return cast("OidcProvider", call.context.sign_on.party)


def _answer(call: ApiCall) -> dict[str, str]:
    found = {name: call.query.many(name) for name in _FIELDS}
    if any(len(values) > 1 for values in found.values()):
        raise BadRequest("The answer of the identity provider says something twice")
    return {name: values[0] for name, values in found.items() if values}


ROUTES = tagged(
    "auth",
    (
        ApiRoute(
            method="GET",
            path="/auth/oidc/login",
            summary="Send a browser to sign in by OpenID Connect; ?next= is the page here to come back to",
            handler=shown(_login, UserSource.OIDC),
            allow=None,
            hidden=True,
        ),
        ApiRoute(
            method="GET",
            path="/auth/oidc/callback",
            summary="Where the OpenID Connect provider sends a browser back to",
            handler=shown(_callback, UserSource.OIDC),
            allow=None,
            hidden=True,
        ),
    ),
)

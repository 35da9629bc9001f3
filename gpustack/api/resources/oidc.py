"""OpenID Connect, as the sign-on flow needs it described."""

from __future__ import annotations

from gpustack.domain.access import UserSource
from gpustack.errors import BadRequest

from ..route import ApiCall
from ..sign_on import SignOnProtocol, sign_on_routes

_FIELDS = ("state", "code", "iss", "error", "error_description")


async def _answer(call: ApiCall) -> dict[str, str]:
    found = {name: call.query.many(name) for name in _FIELDS}
    if any(len(values) > 1 for values in found.values()):
        raise BadRequest("The answer of the identity provider says something twice")
    return {name: values[0] for name, values in found.items() if values}


ROUTES = sign_on_routes(
    SignOnProtocol(
        source=UserSource.OIDC,
        title="OpenID Connect",
        state_field="state",
        read_answer=_answer,
        callback="Where the OpenID Connect provider sends a browser back to",
    )
)

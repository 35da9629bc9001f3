"""SAML, as the sign-on flow needs it described, and our metadata for the identity provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

from gpustack.domain.access import UserSource
from gpustack.errors import BadRequest

from ..route import ApiCall, ApiResponse, ApiRoute
from ..sign_on import SignOnProtocol, provider_of, sign_on_routes

if TYPE_CHECKING:  # importing it is slow, and needed only where SAML is configured
    from gpustack.identity.saml.provider import SamlProvider

_FORM = "application/x-www-form-urlencoded"


async def _answer(call: ApiCall) -> dict[str, str]:
    kind = call.request.text(b"content-type").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise BadRequest(f"The identity provider's answer comes as a form ({_FORM})")
    try:
        read: dict[str, Any] = parse_qs((await call.request.body()).decode(), max_num_fields=20)
    except ValueError as error:
        raise BadRequest("The form cannot be read") from error
    if any(len(values) > 1 for values in read.values()):
        raise BadRequest("The form says something twice")
    return {name: values[0] for name, values in read.items()}


async def _metadata(call: ApiCall) -> ApiResponse:
    provider = cast("SamlProvider", provider_of(call, UserSource.SAML))
    text = await provider.metadata()
    return ApiResponse(body=text.encode(), content_type="application/samlmetadata+xml")


ROUTES = sign_on_routes(
    SignOnProtocol(
        source=UserSource.SAML,
        title="SAML",
        state_field="RelayState",
        read_answer=_answer,
        callback="Where the SAML identity provider has a browser bring its answer (HTTP-POST binding)",
        is_posted=True,
    ),
    ApiRoute(
        method="GET",
        path="/auth/saml/metadata",
        summary="What a SAML identity provider needs to know of this server",
        handler=_metadata,
        allow=None,
        answer_type="application/samlmetadata+xml",
        hidden=True,
    ),
)

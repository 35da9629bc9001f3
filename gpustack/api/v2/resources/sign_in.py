"""How to sign in, as GPUStack 2.x tells it."""

from __future__ import annotations

from gpustack.domain.access import UserSource

from ...route import ApiCall, ApiResponse, ApiRoute


async def _config(call: ApiCall) -> ApiResponse:
    provider = call.context.sign_on.provider
    source = None if provider is None else provider.source
    external = None
    if source is not None:
        external = {
            "type": source.value.lower(),
            "login_url": f"/auth/{source.value.lower()}/login",
            "display_name": source.value,
        }
    return ApiResponse(
        document={
            "external_auth": external,
            "is_oidc": source is UserSource.OIDC,
            "is_saml": source is UserSource.SAML,
        }
    )


ROUTES = (
    ApiRoute(
        method="GET",
        path="/auth/config",
        summary="Which ways to sign in there are",
        handler=_config,
        allow=None,
    ),
)

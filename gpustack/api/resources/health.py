"""What anybody may ask: whether the server lives, is ready, what it is, and how to sign in."""

from __future__ import annotations

from gpustack.domain.access import UserSource

from ..problems import readiness
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Boolean, Document, Text


async def _healthz(call: ApiCall) -> ApiResponse:
    return ApiResponse(document="ok")


async def _readyz(call: ApiCall) -> ApiResponse:
    answer = readiness(*call.context.server.readiness())
    return ApiResponse(status=answer.status, document=answer.document, headers=answer.headers)


async def _version(call: ApiCall) -> ApiResponse:
    version = call.context.server.version
    return ApiResponse(document={"version": version.version, "git_commit": version.git_commit})


async def _auth_config(call: ApiCall) -> ApiResponse:
    provider = call.context.sign_on.provider
    if provider is None:
        return ApiResponse(document={})
    source = provider.source
    return ApiResponse(document={"is_oidc": source is UserSource.OIDC, "is_saml": source is UserSource.SAML})


ROUTES = tagged(
    "server",
    (
        ApiRoute(
            method="GET", path="/healthz", summary="Whether the server lives", handler=_healthz, allow=None
        ),
        ApiRoute(
            method="GET",
            path="/health",
            summary="The same as /healthz, by the name that benchmark tools and engines' clients know",
            handler=_healthz,
            allow=None,
        ),
        ApiRoute(
            method="GET",
            path="/readyz",
            summary="Whether the server takes requests; 503 with what is missing while it does not",
            handler=_readyz,
            allow=None,
        ),
        ApiRoute(
            method="GET",
            path="/version",
            summary="Which version this is",
            handler=_version,
            allow=None,
            answer=Document(name="Version", fields={"version": Text(), "git_commit": Text()}),
        ),
        ApiRoute(
            method="GET",
            path="/auth-config",
            summary="Which other ways to sign in there are; none is an empty object",
            handler=_auth_config,
            allow=None,
            answer=Document(name="AuthConfig", fields={"is_oidc": Boolean(), "is_saml": Boolean()}),
        ),
    ),
)

"""What anybody may ask: whether the server lives, is ready, what it is, and how to sign in."""

from __future__ import annotations

from gpustack.domain.access import UserSource

from .readiness import readiness
from .route import Call, Reply, Route, tagged
from .shape import Document, Flag, Text


async def _healthz(call: Call) -> Reply:
    return Reply(document="ok")


async def _readyz(call: Call) -> Reply:
    answer = readiness(*call.context.readiness())
    return Reply(status=answer.status, document=answer.document, headers=answer.headers)


async def _version(call: Call) -> Reply:
    version = call.context.version
    return Reply(document={"version": version.version, "git_commit": version.git_commit})


async def _auth_config(call: Call) -> Reply:
    party = call.context.sign_on.party
    if party is None:
        return Reply(document={})
    is_oidc, is_saml = (party.source is source for source in (UserSource.OIDC, UserSource.SAML))
    return Reply(document={"is_oidc": is_oidc, "is_saml": is_saml})


ROUTES = tagged(
    "server",
    (
        Route(
            method="GET", path="/healthz", summary="Whether the server lives", handler=_healthz, allow=None
        ),
        Route(
            method="GET",
            path="/health",
            summary="The same as /healthz, by the name that benchmark tools and engines' clients know",
            handler=_healthz,
            allow=None,
        ),
        Route(
            method="GET",
            path="/readyz",
            summary="Whether the server takes requests; 503 with what is missing while it does not",
            handler=_readyz,
            allow=None,
        ),
        Route(
            method="GET",
            path="/version",
            summary="Which version this is",
            handler=_version,
            allow=None,
            answer=Document(name="Version", fields={"version": Text(), "git_commit": Text()}),
        ),
        Route(
            method="GET",
            path="/auth-config",
            summary="Which other ways to sign in there are; none is an empty object",
            handler=_auth_config,
            allow=None,
            answer=Document(name="AuthConfig", fields={"is_oidc": Flag(), "is_saml": Flag()}),
        ),
    ),
)

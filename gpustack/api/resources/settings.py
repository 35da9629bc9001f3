"""The settings of this server, each with where it was written; and whether people can sign in at the provider."""

from __future__ import annotations

from ..problems import MalformedRequest
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, Boolean, Document, Nullable, Text
from ..view import plain

_LONGEST_URL = 2048


async def _settings(call: ApiCall) -> ApiResponse:
    return ApiResponse(document={"items": plain(call.context.server.settings)})


async def _test(call: ApiCall) -> ApiResponse:
    issuer = call.document.get("oidc_issuer")
    if issuer is not None and not issuer.startswith(("http://", "https://")):
        raise MalformedRequest("oidc_issuer: must be an http or https URL")
    found = await call.context.server.sign_on_trial(issuer)
    return ApiResponse(
        document={
            "kind": found.kind,
            "ok": found.fault is None,
            "fault": found.fault,
            "facts": list(found.facts),
        }
    )


_SETTING = Document(
    name="Setting",
    fields={
        "name": Text(),
        "value": Text(),
        "origin": Text(),
        "is_default": Boolean(),
        "is_secret": Boolean(),
        "group": Text(),
        "help": Text(),
        "variable": Text(),
    },
    note="value is as text, empty where none is set; secrets are masked. origin: where it was written (a flag, a "
    "variable, a line of a file), or default.",
)

ROUTES = tagged(
    "settings",
    (
        ApiRoute(
            method="GET",
            path="/v1/settings",
            summary="List the settings of this server with where each was written; secrets masked",
            handler=_settings,
            answer=Document(name="SettingList", fields={"items": Array(_SETTING)}),
        ),
        ApiRoute(
            method="POST",
            path="/v1/settings/sign-on/test",
            summary="Try whether the identity provider can be used from here",
            handler=_test,
            action="settings.test_sign_on",
            body=Document(
                name="SignOnTest",
                fields={"oidc_issuer": Nullable(Text(longest=_LONGEST_URL))},
                strict=True,
                note="oidc_issuer: another issuer than the configured one, to try before it is configured.",
            ),
            answer=Document(
                name="SignOnTrial",
                fields={
                    "kind": Nullable(Text()),
                    "ok": Boolean(),
                    "fault": Nullable(Text()),
                    "facts": Array(Text()),
                },
                note="kind: OIDC, SAML, or null where none is configured. fault: what is wrong, in a sentence. facts: "
                "what was found, a sentence each.",
            ),
        ),
    ),
)

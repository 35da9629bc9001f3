"""What is configured for signing in by another party is looked at as a whole, before anybody tries it."""

from __future__ import annotations

import pytest

from gpustack.config.sign_on import sign_on_kind

from .loading import faults, loaded

ISSUER = "--oidc-issuer=https://idp.example/realm"
CLIENT = "--oidc-client-id=gpustack"
BACK = "--oidc-redirect-uri=https://gpustack.example/auth/oidc/callback"


def test_everything_that_is_missing_is_told_at_once() -> None:
    assert faults("--oidc-issuer=http://idp.example?x=y", "--external-auth-groups=groups") == [
        "flag --external-auth-groups: external_auth_groups and external_auth_admin_groups go together: where the "
        "groups are found, and whose members are administrators",
        "flag --oidc-issuer: oidc_issuer is set, and oidc_client_id is not",
        "flag --oidc-issuer: oidc_issuer is set, and oidc_redirect_uri is not",
        "flag --oidc-issuer: oidc_issuer must be without query and fragment",
        "flag --oidc-issuer: oidc_issuer must begin with https: whoever stands between could sign in as anybody",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "https://gpustack.example/",
        "https://gpustack.example/auth/saml/callback",
        "https://gpustack.example/auth/oidc/callback/",
        "https://gpustack.example/auth/oidc/callback?next=/",
        "https://gpustack.example/auth/oidc/callback#x",
    ],
)
def test_the_provider_sends_browsers_to_the_callback(url: str) -> None:
    (told,) = faults(ISSUER, CLIENT, f"--oidc-redirect-uri={url}")
    assert told.startswith(
        "flag --oidc-redirect-uri: oidc_redirect_uri must be <server-url>/auth/oidc/callback"
    )


def test_what_is_whole_is_taken() -> None:
    assert not faults(ISSUER, CLIENT, BACK)
    for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000"):
        assert not faults(f"--oidc-issuer=http://{host}", CLIENT, BACK)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("LDAP", "external_auth_type must be OIDC or SAML, not 'LDAP'"),
        ("OIDC", "external_auth_type is OIDC, and oidc_issuer is not set"),
        ("saml", "external_auth_type is saml, and saml_idp_server_url is not set"),
    ],
)
def test_the_kind_that_is_asked_for_is_configured(kind: str, told: str) -> None:
    assert faults(env={"GPUSTACK_EXTERNAL_AUTH_TYPE": kind}) == [f"GPUSTACK_EXTERNAL_AUTH_TYPE: {told}"]


def test_oidc_goes_before_saml_unless_the_kind_is_said() -> None:
    both = (ISSUER, CLIENT, BACK, "--saml-idp-server-url=https://idp.example/saml")
    assert sign_on_kind(loaded().options) is None
    assert sign_on_kind(loaded(*both).options) == "OIDC"
    assert sign_on_kind(loaded(*both, env={"GPUSTACK_EXTERNAL_AUTH_TYPE": "saml"}).options) == "SAML"
    assert sign_on_kind(loaded(both[-1]).options) == "SAML"

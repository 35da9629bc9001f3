"""What is configured for signing in by another party is looked at as a whole, before anybody tries it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpustack.config.saml import security_of
from gpustack.config.sign_on import sign_on_kind

from .loading import faults, loaded

ISSUER = "--oidc-issuer=https://idp.example/realm"
CLIENT = "--oidc-client-id=gpustack"
BACK = "--oidc-redirect-uri=https://gpustack.example/auth/oidc/callback"
SAML = (
    "--saml-idp-server-url=https://idp.example/saml",
    "--saml-idp-entity-id=urn:idp",
    "--saml-sp-entity-id=urn:us",
    "--saml-sp-acs-url=https://gpustack.example/auth/saml/callback",
    "--saml-idp-x509-cert=MAAA",
)


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
    both = (ISSUER, CLIENT, BACK, *SAML)
    assert sign_on_kind(loaded().options) is None
    assert sign_on_kind(loaded(*both).options) == "OIDC"
    assert sign_on_kind(loaded(*both, env={"GPUSTACK_EXTERNAL_AUTH_TYPE": "saml"}).options) == "SAML"
    assert sign_on_kind(loaded(*SAML).options) == "SAML"


def test_what_saml_needs_is_asked_for() -> None:
    assert faults(SAML[0]) == [
        f"flag --saml-idp-server-url: saml_idp_server_url is set, and {name} is not"
        for name in ("saml_idp_entity_id", "saml_idp_x509_cert", "saml_sp_entity_id", "saml_sp_acs_url")
    ]
    assert faults(*SAML, "--saml-sp-private-key=MAAA") == [
        "flag --saml-sp-private-key: saml_sp_private_key and saml_sp_x509_cert go together, and saml_sp_x509_cert is "
        "not set"
    ]


@pytest.mark.parametrize(
    "text", ["hunter2", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "AAAA"]
)
def test_what_is_no_certificate_is_refused_and_not_shown(text: str) -> None:
    told = faults(*SAML[:-1], f"--saml-idp-x509-cert={text}")
    assert told == [
        "flag --saml-idp-x509-cert: saml_idp_x509_cert must be in PEM, its base64 without the lines "
        "around it, or a path from /"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "MAAA",
        "MA\nAA",
        r"MA\nAA",
        "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n",
        r"-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE----- MAAA -----END CERTIFICATE-----",
        "Bag Attributes\n-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----",
    ],
)
def test_a_certificate_is_written_in_many_ways(text: str) -> None:
    assert not faults(*SAML[:-1], f"--saml-idp-x509-cert={text}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "saml_security must be a JSON object"),
        ("{", "saml_security must be a JSON object"),
        ('{"strict": false}', "saml_security: strict must be true: nothing is checked otherwise"),
        (
            '{"wantMessagesSigned": "yes"}',
            "saml_security: wantMessagesSigned must be true or false, not '\"yes\"'",
        ),
        ('{"wantMessagesSigned": 1}', "saml_security: wantMessagesSigned must be true or false, not '1'"),
        ('{"requestedAuthnContext": []}', "requestedAuthnContext must be true, false or a list of texts"),
        (
            '{"requestedAuthnContextComparison": "x"}',
            "must be one of exact, minimum, maximum, better, not 'x'",
        ),
        (
            '{"signatureAlgorithm": "http://www.w3.org/2000/09/xmldsig#rsa-sha1"}',
            "must be one of http://www.w3.org/",
        ),
        ('{"metadataValidUntil": true}', "metadataValidUntil must be a text or null, not 'true'"),
        ('{"wantNameIdEncrypted": true}', "encrypt the assertion instead"),
        ('{"authnRequestsSigned": true}', "saml_security: authnRequestsSigned needs saml_sp_private_key"),
        ('{"wantAssertionsEncrypted": true}', "wantAssertionsEncrypted needs saml_sp_private_key"),
    ],
)
def test_a_wrong_security_setting_is_named(text: str, told: str) -> None:
    (said,) = faults(*SAML, f"--saml-security={text}")
    assert said.startswith("flag --saml-security: ")
    assert told in said


def test_an_unknown_security_setting_is_told_with_those_that_there_are() -> None:
    (said,) = faults(*SAML, '--saml-security={"wantAssertionSigned": true}')
    assert "has no key 'wantAssertionSigned': it takes allowRepeatAttributeName, " in said
    assert "wantAssertionsSigned" in said


def test_our_defaults_hold_where_nothing_is_said() -> None:
    plain = security_of(loaded(*SAML).options)
    wanted = ("strict", "wantAssertionsSigned", "rejectDeprecatedAlgorithm")
    assert [plain[name] for name in wanted] == [True, True, True]
    assert (plain["authnRequestsSigned"], plain["requestedAuthnContext"]) == (False, False)
    assert plain["signatureAlgorithm"].endswith("rsa-sha256")
    given = '--saml-security={"wantAssertionsSigned": false, "requestedAuthnContext": ["a"]}'
    changed = security_of(loaded(*SAML, given).options)
    assert {name for name in plain if plain[name] != changed[name]} == {
        "wantAssertionsSigned",
        "requestedAuthnContext",
    }


def test_a_way_back_without_tls_is_told_of() -> None:
    open_way = "--oidc-redirect-uri=http://gpustack.example/auth/oidc/callback"
    assert loaded(ISSUER, CLIENT, open_way).warnings == (
        "Not https, so that who listens on the way can sign in as whom they hear: "
        "oidc_redirect_uri (flag --oidc-redirect-uri).",
    )
    for back in (BACK, "--oidc-redirect-uri=http://127.0.0.1/auth/oidc/callback"):
        assert loaded(ISSUER, CLIENT, back).warnings == ()


def test_a_certificate_may_be_in_a_file_that_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "idp.crt"
    assert faults(*SAML[:-1], f"--saml-idp-x509-cert={path}") == [
        f"flag --saml-idp-x509-cert: saml_idp_x509_cert names {path}, which is not there"
    ]
    path.touch()
    assert not faults(*SAML[:-1], f"--saml-idp-x509-cert={path}")

"""The options of signing in by SAML, in each spelling, with SimpleSAMLphp as the provider of a running daemon."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx
import pytest
from lxml import etree

from tests.daemon import Daemon, daemon
from tests.options.spelling import shortly, spelled
from tests.ports import free_port
from tests.provider import ALONE
from tests.saml.keys import pair
from tests.saml.simplesaml import ENTITY, SimpleSaml, person, running_simplesaml

SP = "urn:of-the-tests:gpustack"


@attrs.frozen
class Site:
    """A daemon at which Alice has signed in, and what she is there."""

    daemon: Daemon
    provider: SimpleSaml
    acs: str
    metadata: Any
    answer: Any
    me: dict[str, Any]


@pytest.fixture(scope="module", params=shortly("environment"))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp(f"saml-{request.param}")
    port = free_port()
    acs = f"http://127.0.0.1:{port}/auth/saml/callback"
    with running_simplesaml(folder / "idp", encrypts=True) as provider:
        values: dict[str, Any] = {
            "saml_idp_server_url": provider.sso_url,
            "saml_idp_entity_id": ENTITY,
            "saml_idp_x509_cert": provider.pair.certificate,
            "saml_sp_entity_id": SP,
            "saml_sp_acs_url": acs,
            "saml_sp_x509_cert": pair("sp").certificate,
            "saml_sp_private_key": pair("sp").key,
            "saml_sp_attribute_prefix": "urn:tests:",
            "saml_security": '{"wantAssertionsEncrypted": true, "wantMessagesSigned": true}',
            "external_auth_name": "uid",
            "external_auth_full_name": "shown",
        }
        arguments, env = spelled(request.param, folder, values)
        with (
            daemon(folder / "data", *arguments, *ALONE, "--port", str(port), env=env) as running,
            person() as alice,
        ):
            metadata = alice.client.get(f"{running.url}/auth/saml/metadata").text
            provider.meet(metadata)
            action, fields = alice.gets_answer(f"{running.url}/auth/saml/login?next=/readyz", "alice")
            at = alice.client.post(action, data=fields)
            assert at.url.path == "/readyz", at.text
            me = alice.client.get(f"{running.url}/v1/users/me").json()
            answer = etree.fromstring(base64.b64decode(fields["SAMLResponse"]))
            yield Site(running, provider, acs, etree.fromstring(metadata.encode()), answer, me)


def test_saml_idp_options_say_by_whom_people_sign_in(site: Site) -> None:
    """Its certificate signed, and it names itself so: otherwise nobody would have come in."""
    assert (site.me["username"], site.me["source"], site.me["is_admin"]) == ("alice", "SAML", False)
    assert site.daemon.call("GET", "/auth-config") == (200, {"is_oidc": False, "is_saml": True})
    away = httpx.get(f"{site.daemon.url}/auth/saml/login")
    assert away.headers["location"].startswith(f"{site.provider.sso_url}?SAMLRequest=")


def test_saml_sp_options_are_what_the_provider_reads_of_us(site: Site) -> None:
    assert site.metadata.get("entityID") == SP
    assert site.metadata.find(".//{*}AssertionConsumerService").get("Location") == site.acs
    assert {one.text for one in site.metadata.iter("{*}X509Certificate")} == {pair("sp").bare}


def test_saml_sp_private_key_signs_requests_and_reads_encrypted_assertions(site: Site) -> None:
    """The provider takes no request of ours that is not signed."""
    away = httpx.get(f"{site.daemon.url}/auth/saml/login").headers["location"]
    assert "Signature" in parse_qs(urlsplit(away).query)
    cut = httpx.get(away.partition("&Signature=")[0])
    assert cut.status_code != 200 or "AuthState" not in cut.text
    assert site.answer.find("{*}EncryptedAssertion") is not None
    assert "PRIVATE" not in site.daemon.log


def test_saml_sp_attribute_prefix_finds_attributes(site: Site) -> None:
    """The attribute is called ``urn:tests:shown`` there."""
    assert site.me["full_name"] == "ALICE LIDDELL"


def test_saml_security_says_what_is_asked_of_answers(site: Site) -> None:
    assert {one.get("use") for one in site.metadata.iter("{*}KeyDescriptor")} == {"signing", "encryption"}

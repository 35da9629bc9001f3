"""What a good answer says is read from it, in all the ways in which providers say it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import xmlsec
from lxml import etree

from gpustack.errors import Forbidden
from gpustack.identity.saml.assertion import Assertion
from gpustack.identity.saml.provider import SamlProvider
from tests.saml.keys import pair
from tests.saml.mint import (
    ACS,
    EMAIL,
    IDP,
    PERSISTENT,
    REQUEST,
    SP,
    TRANSIENT,
    Answer,
    assertion,
    packed,
    saml,
    sign,
)

GOOD = Answer()


async def read(answer: Answer | str, one: SamlProvider | None = None) -> Assertion:
    text = answer if isinstance(answer, str) else answer.encoded()
    return await (one or saml()).verify(text, request_id=REQUEST, now=datetime.now(UTC))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"signs_response": True},
        {"encrypts": True},
        {"encrypts": True, "signs_response": True},
        {"encrypts": True, "cipher": "aes256-gcm"},
        {"algorithm": "sha512"},
        {"destination": None},
        {"not_before": None},
        {"session_until": None},
        {"audiences": ("urn:other", SP)},
        {"not_before": 30},
        {"not_on_or_after": 1},
    ],
)
async def test_a_signed_answer_says_who_it_is(how: dict[str, Any]) -> None:
    found = await read(attrs.evolve(GOOD, **how))
    assert (found.issuer, found.subject(None)) == (IDP, "emailAddress!!!alice@example.com")
    assert found.values("displayName") == ("Alice Liddell",)
    assert found.values("nothing") == ()


async def test_line_breaks_in_the_base64_are_nothing() -> None:
    text = GOOD.encoded()
    assert (await read("\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)))).issuer == IDP


@pytest.mark.parametrize("prefixes", ["", "xs", "xs xsi saml", "#default xs", "unknown"])
@pytest.mark.parametrize("canonical", [xmlsec.Transform.EXCL_C14N, xmlsec.Transform.C14N])
async def test_providers_canonicalise_in_several_ways(prefixes: str, canonical: Any) -> None:
    root = etree.fromstring(GOOD.text())
    sign(assertion(root), prefixes=prefixes, canonical=canonical)
    assert (await read(packed(root))).name_id is not None


async def test_while_a_provider_changes_its_key_both_certificates_hold() -> None:
    both = pair("new idp").certificate + pair("idp").certificate
    one = saml(saml_idp_x509_cert=both)
    for signer in ("idp", "new idp"):
        assert (await read(attrs.evolve(GOOD, signer=signer), one)).issuer == IDP
    with pytest.raises(Forbidden):
        await read(attrs.evolve(GOOD, signer="stranger"), one)


NAME = attrs.evolve(GOOD, attributes=())


@pytest.mark.parametrize(
    ("answer", "subject"),
    [
        (NAME, "emailAddress!!!alice@example.com"),
        (attrs.evolve(NAME, name_format=PERSISTENT, name_id="a!b"), "persistent!!!a!b"),
        (
            attrs.evolve(NAME, name_format=PERSISTENT, name_qualifiers=f' NameQualifier="{IDP}"'),
            "persistent!!!alice@example.com",
        ),
        (
            attrs.evolve(NAME, name_format=PERSISTENT, name_qualifiers=f' SPNameQualifier="{SP}"'),
            "persistent!!!alice@example.com",
        ),
        (
            attrs.evolve(NAME, name_format=PERSISTENT, name_qualifiers=' NameQualifier="urn:a!b"'),
            "persistent!urn:a%21b!!alice@example.com",
        ),
        (
            attrs.evolve(NAME, name_format=PERSISTENT, name_qualifiers=' SPNameQualifier="urn:a"'),
            "persistent!!urn:a!alice@example.com",
        ),
    ],
)
async def test_the_account_goes_by_the_name_id_and_all_that_tells_it_from_others(
    answer: Answer, subject: str
) -> None:
    assert (await read(answer)).subject(None) == subject


@pytest.mark.parametrize(
    "how", [{"name_format": TRANSIENT}, {"name_id": None}, {"name_id": "", "name_format": EMAIL}]
)
async def test_a_name_id_that_does_not_last_is_no_account(how: dict[str, Any]) -> None:
    """Then the attribute that was chosen for the name is it, and without one nobody signs in."""
    found = await read(attrs.evolve(GOOD, **how))
    with pytest.raises(Forbidden, match="nothing lasting"):
        found.subject(None)
    with pytest.raises(Forbidden, match="nothing lasting"):
        found.subject("absent")
    assert found.subject("uid") == "attribute!uid!!alice"
    assert found.values("name_id") == ()


async def test_an_attribute_of_several_values_is_no_account() -> None:
    many = attrs.evolve(GOOD, name_format=TRANSIENT, attributes=(("uid", ("alice", "bob")),))
    with pytest.raises(Forbidden, match="nothing lasting"):
        (await read(many)).subject("uid")


async def test_an_attribute_is_looked_for_under_all_its_names() -> None:
    claims = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
    told = (
        ("urn:of:us:uid", ("by prefix",)),
        (f"{claims}uid", ("by claim",)),
        ("uid", ("by name",)),
        (f"{claims}mail", ("by claim",)),
        ("mail", ("by name",)),
    )
    one = saml(saml_sp_attribute_prefix="urn:of:us:")
    found = await read(attrs.evolve(GOOD, attributes=told), one)
    assert [found.values(name) for name in ("uid", "mail", "name_id", "nameidentifier")] == [
        ("by prefix",),
        ("by claim",),
        ("alice@example.com",),
        ("alice@example.com",),
    ]
    plain = await read(attrs.evolve(GOOD, attributes=told))
    assert plain.values("uid") == ("by claim",)


async def test_friendly_names_do_where_there_is_no_other() -> None:
    root = etree.fromstring(GOOD.text())
    for attribute, friendly in zip(root.iter("{*}Attribute"), ("mail", "cn", "cn"), strict=True):
        attribute.set("FriendlyName", friendly)
    sign(assertion(root))
    found = await read(packed(root))
    assert found.values("mail") == ("alice@example.com",)
    assert found.values("cn") == ()  # of two attributes: which one?


async def test_a_repeated_attribute_joins_where_it_may() -> None:
    twice = attrs.evolve(GOOD, attributes=(("groups", ("a",)), ("groups", ("b", "c"))))
    found = await read(twice, saml(saml_security='{"allowRepeatAttributeName": true}'))
    assert found.values("groups") == ("a", "b", "c")


async def test_an_assertion_is_remembered_until_it_ends_and_a_day_at_most() -> None:
    now = datetime.now(UTC)
    short = await read(attrs.evolve(GOOD, not_on_or_after=100, confirmed_until=200))
    assert now + timedelta(seconds=250) < short.used_until < now + timedelta(seconds=270)
    long = await read(attrs.evolve(GOOD, not_on_or_after=10**8, confirmed_until=10**8))
    assert long.used_until <= datetime.now(UTC) + timedelta(days=1)
    assert short.id_hash == long.id_hash != (await read(attrs.evolve(GOOD, identity="_other"))).id_hash


async def test_a_request_is_signed_and_names_us_whatever_is_in_addresses() -> None:
    import base64
    import zlib
    from urllib.parse import parse_qs, urlsplit

    one = saml(saml_sp_entity_id='urn:us?a=1&b="<2>"')
    request = await one.request(random.Random(1))
    url = await request.url("the-state")
    query = parse_qs(urlsplit(url).query)
    assert url.startswith("http://idp.test/sso?tenant=a&b=c&SAMLRequest=")
    assert query["RelayState"] == ["the-state"]
    assert query["SigAlg"] == ["http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"]
    root = etree.fromstring(zlib.decompress(base64.b64decode(query["SAMLRequest"][0]), -15))
    assert root.get("ID") == request.secret
    assert root.get("AssertionConsumerServiceURL") == ACS
    assert root.get("Destination") == "http://idp.test/sso?tenant=a&b=c"
    assert root.findtext("{*}Issuer") == 'urn:us?a=1&b="<2>"'
    assert not root.findall(".//{*}RequestedAuthnContext")
    assert (await one.request(random.Random(1))).secret != request.secret


async def test_without_a_key_requests_are_not_signed() -> None:
    one = saml(saml_sp_private_key=None, saml_sp_x509_cert=None)
    request = await one.request(random.Random(1))
    assert "Signature" not in await request.url("s")
    assert "KeyDescriptor" not in await one.metadata()


async def test_the_metadata_says_who_we_are() -> None:
    root = etree.fromstring((await saml().metadata()).encode())
    assert root.get("entityID") == SP
    service = root.find(".//{*}AssertionConsumerService")
    assert (service.get("Location"), service.get("Binding").rpartition(":")[2]) == (ACS, "HTTP-POST")
    described = root.find("{*}SPSSODescriptor")
    assert (described.get("AuthnRequestsSigned"), described.get("WantAssertionsSigned")) == ("true", "true")
    assert root.find(".//{*}X509Certificate").text == pair("sp").bare
    assert "PRIVATE" not in etree.tostring(root).decode()
    wanted = saml(saml_security='{"wantAssertionsEncrypted": true, "signMetadata": true}')
    signed = etree.fromstring((await wanted.metadata()).encode())
    assert {one.get("use") for one in signed.iter("{*}KeyDescriptor")} == {"signing", "encryption"}
    assert signed.find("{*}Signature") is not None

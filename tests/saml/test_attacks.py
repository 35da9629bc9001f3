"""Nobody signs in by an answer that the identity provider has not signed for them, for us, for now and for once."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import xmlsec
from lxml import etree

from gpustack.errors import BadRequest, Forbidden, GpustackError, PayloadTooLarge
from gpustack.identity.saml import message, response
from gpustack.identity.saml.assertion import Assertion, read_assertion
from gpustack.identity.saml.provider import SamlProvider
from tests.saml.keys import pair
from tests.saml.mint import ACS, NAMES, REQUEST, SP, Answer, assertion, encrypt, packed, saml, sign
from tests.saml.wrapping import ADMIN, ATTACKS, forged

pytestmark = pytest.mark.attack("saml")

GOOD = Answer()
SECURITIES: Mapping[str, dict[str, object]] = {
    "nothing set": {},
    "assertions": {"wantAssertionsSigned": True, "wantMessagesSigned": False},
    "messages": {"wantAssertionsSigned": False, "wantMessagesSigned": True},
    "both": {"wantAssertionsSigned": True, "wantMessagesSigned": True},
    "either": {"wantAssertionsSigned": False, "wantMessagesSigned": False},
    "old algorithms": {"rejectDeprecatedAlgorithm": False},
}
EACH = pytest.mark.parametrize("security", SECURITIES)


def strictness(name: str) -> SamlProvider:
    return saml(saml_security=json.dumps(SECURITIES[name]))


async def shown(
    one: SamlProvider, answer: str | Any, *, later: float = 0, request: str = REQUEST
) -> Assertion:
    text = answer if isinstance(answer, str) else packed(answer)
    now = datetime.now(UTC) + timedelta(seconds=later)
    return await one.verify(text, request_id=request, now=now)


async def refuses(one: SamlProvider, answer: str | Any, **how: Any) -> str:
    """The sentence with which it is refused."""
    with pytest.raises((Forbidden, BadRequest, PayloadTooLarge)) as raised:
        await shown(one, answer, **how)
    return str(raised.value)


def raw(xml: bytes) -> str:
    return base64.b64encode(xml).decode()


def fully_signed() -> Any:
    return attrs.evolve(GOOD, signs_response=True).tree()


@EACH
@pytest.mark.parametrize("name", ATTACKS)
async def test_a_forged_assertion_beside_the_signed_one_is_not_believed(name: str, security: str) -> None:
    one = strictness(security)
    assert ADMIN in etree.tostring(ATTACKS[name](GOOD)).decode()
    await refuses(one, ATTACKS[name](GOOD))
    await refuses(one, ATTACKS[name](attrs.evolve(GOOD, signs_response=True)))


@EACH
@pytest.mark.parametrize("encrypted", [False, True])
async def test_without_a_signature_nothing_is_believed(security: str, encrypted: bool) -> None:
    """Encryption proves nothing: everybody has our certificate."""
    await refuses(
        strictness(security), attrs.evolve(GOOD, signs_assertion=False, encrypts=encrypted).encoded()
    )


@EACH
async def test_with_its_signatures_stripped_an_answer_is_nothing(security: str) -> None:
    root = fully_signed()
    for signature in root.findall(".//ds:Signature", NAMES):
        signature.getparent().remove(signature)
    root.find(".//saml:NameID", NAMES).text = ADMIN
    await refuses(strictness(security), root)


@EACH
async def test_a_signature_of_the_response_does_not_replace_the_one_it_had_inside(security: str) -> None:
    """One of the two signatures stripped, and what it was over changed."""
    for stripped, kept in (("saml:Assertion/ds:Signature", None), ("ds:Signature", "saml:Assertion")):
        root = fully_signed()
        signature = root.find(stripped, NAMES)
        signature.getparent().remove(signature)
        target = root if kept is None else root.find(kept, NAMES)
        target.find(".//saml:NameID", NAMES).text = ADMIN
        await refuses(strictness(security), root)


def _set(path: str, text: str) -> Callable[[Any], None]:
    def change(root: Any) -> None:
        root.find(path, NAMES).text = text

    return change


def _attribute(path: str, name: str, value: str) -> Callable[[Any], None]:
    def change(root: Any) -> None:
        root.find(path, NAMES).set(name, value)

    return change


def _add_attribute(root: Any) -> None:
    statement = root.find(".//saml:AttributeStatement", NAMES)
    more = copy.deepcopy(statement[0])
    more.set("Name", "groups")
    more[0].text = "admins"
    statement.append(more)


EDITS: Mapping[str, Callable[[Any], None]] = {
    "name id": _set(".//saml:NameID", ADMIN),
    "attribute": _set(".//saml:AttributeValue", ADMIN),
    "another attribute": _add_attribute,
    "audience": _set(".//saml:Audience", "urn:other"),
    "end": _attribute(".//saml:Conditions", "NotOnOrAfter", "2099-01-01T00:00:00Z"),
    "id": _attribute("saml:Assertion", "ID", "_other"),
    "format": _attribute(".//saml:NameID", "Format", "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"),
    "digest": _set(".//ds:DigestValue", base64.b64encode(b"0" * 32).decode()),
    "signature": _set(".//ds:SignatureValue", base64.b64encode(b"0" * 256).decode()),
    "no digest": _set(".//ds:DigestValue", ""),
    "no signature": _set(".//ds:SignatureValue", ""),
    "reference": _attribute(".//ds:Reference", "URI", "#_response1"),
    "reference to all": _attribute(".//ds:Reference", "URI", ""),
    "reference elsewhere": _attribute(".//ds:Reference", "URI", "file:///etc/passwd"),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_what_was_signed_cannot_be_edited(edit: str) -> None:
    root = GOOD.tree()
    EDITS[edit](root)
    await refuses(saml(), root)


ALGORITHMS = {
    "hmac": "http://www.w3.org/2000/09/xmldsig#hmac-sha1",
    "hmac-sha256": "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256",
    "none": "http://www.w3.org/2001/04/xmldsig-more#none",
    "md5": "http://www.w3.org/2001/04/xmldsig-more#rsa-md5",
    "absent": "",
}


@pytest.mark.parametrize("name", ALGORITHMS)
async def test_a_signature_names_no_algorithm_of_its_choice(name: str) -> None:
    root = GOOD.tree()
    root.find(".//ds:SignatureMethod", NAMES).set("Algorithm", ALGORITHMS[name])
    assert "algorithm" in await refuses(saml(saml_security='{"rejectDeprecatedAlgorithm": false}'), root)


async def test_the_certificate_is_no_shared_secret() -> None:
    """Everybody knows it: an HMAC with it in place of a signature is nobody's word."""
    root = etree.fromstring(attrs.evolve(GOOD, name_id=ADMIN).text())
    element = assertion(root)
    node = xmlsec.template.create(element, xmlsec.Transform.EXCL_C14N, xmlsec.Transform.HMAC_SHA256, ns="ds")
    element.insert(1, node)
    reference = xmlsec.template.add_reference(node, xmlsec.Transform.SHA256, uri="#_assertion1")
    xmlsec.template.add_transform(reference, xmlsec.Transform.ENVELOPED)
    xmlsec.template.add_transform(reference, xmlsec.Transform.EXCL_C14N)
    xmlsec.tree.add_ids(element, ["ID"])
    context = xmlsec.SignatureContext()
    known = pair("idp").certificate.encode()
    context.key = xmlsec.Key.from_binary_data(xmlsec.KeyData.HMAC, known)
    context.sign(node)
    assert "algorithm" in await refuses(saml(), root)


@EACH
@pytest.mark.parametrize("known", ["stranger", "idp"])
async def test_a_stranger_signs_for_nobody(security: str, known: str) -> None:
    """Whichever certificate goes along with it: ours is the one that was configured."""
    root = etree.fromstring(attrs.evolve(GOOD, name_id=ADMIN).text())
    if known == "idp":
        element = sign(assertion(root), signer="stranger").find(".//ds:X509Certificate", NAMES)
        element.text = pair("idp").bare
    else:
        sign(assertion(root), signer="stranger")
        sign(root, signer="stranger")
    await refuses(strictness(security), root)


async def test_sha1_is_refused_unless_it_was_allowed() -> None:
    answer = attrs.evolve(GOOD, algorithm="sha1").encoded()
    assert "algorithm" in await refuses(saml(), answer)
    assert (await shown(saml(saml_security='{"rejectDeprecatedAlgorithm": false}'), answer)).issuer


TRANSFORMS = {
    "xpath": "http://www.w3.org/TR/1999/REC-xpath-19991116",
    "xslt": "http://www.w3.org/TR/1999/REC-xslt-19991116",
    "base64": "http://www.w3.org/2000/09/xmldsig#base64",
    "filter": "http://www.w3.org/2002/06/xmldsig-filter2",
}


@pytest.mark.parametrize("name", TRANSFORMS)
async def test_no_transform_leaves_out_or_runs_anything(name: str) -> None:
    root = GOOD.tree()
    transforms = root.find(".//ds:Transforms", NAMES)
    etree.SubElement(transforms, f"{{{NAMES['ds']}}}Transform").set("Algorithm", TRANSFORMS[name])
    assert "exclusive canonical XML" in await refuses(saml(), root)


async def test_a_signature_does_not_make_us_work_for_nothing() -> None:
    """Each transform is one more pass over the document, before anything is proved. Here is one more than may be of
    each: the toolkit itself has no bound, and works for as long as there are more."""
    root = GOOD.tree()
    transforms = root.find(".//ds:Transforms", NAMES)
    transforms.append(copy.deepcopy(transforms[1]))
    assert "exclusive canonical XML" in await refuses(saml(), root)
    many = attrs.evolve(GOOD, encrypts=True).tree()
    key = many.find(".//xenc:EncryptedKey", NAMES)
    for _ in range(4):
        key.addnext(copy.deepcopy(key))
    assert "unusual way" in await refuses(saml(), many)
    for name, value in (("n", ""), ("PrefixList", "n")):
        wide = GOOD.tree()
        element = wide.find(".//saml:AttributeValue", NAMES)
        if name == "n":
            for number in range(65):
                element.set(f"n{number}", value)
        else:
            listed = wide.find(".//ds:Transforms", NAMES)[1][0]
            listed.set(name, " ".join(f"{value}{number}" for number in range(40)))
        assert "too many" in await refuses(saml(), wide)


def _with_names(xml: bytes, before: bytes, most: int) -> bytes:
    names = b"".join(b' xmlns:a%d="urn:%d"' % (number, number) for number in range(most))
    return xml.replace(before, before + names, 1)


@pytest.mark.parametrize(
    "before", [b"<samlp:Response", b"<saml:Assertion", b"<ds:SignedInfo", b"<ds:DigestMethod"]
)
async def test_names_by_the_thousand_are_counted_before_anything_is_parsed(
    before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XPath does not count declarations, and canonical XML takes the square of them at each element: with thousands
    the library works for minutes. A few more than may be are as good as those."""
    xml = etree.tostring(GOOD.tree())
    assert before in xml
    monkeypatch.setattr(response, "parse", None)
    told = await refuses(saml(), raw(_with_names(xml, before, 40)))
    assert "too many namespaces" in told


async def test_names_by_the_thousand_are_counted_inside_the_encryption(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    root = GOOD.tree()
    inside = etree.tostring(assertion(root))
    encrypt(root, content=_with_names(inside, b"<saml:Assertion", 40))
    await refuses(saml(), root)
    assert "too many namespaces" in caplog.text


async def test_names_that_are_declared_at_each_level_do_not_add_up() -> None:
    root = GOOD.tree()
    deep = b"<b xmlns:a='urn:a'>" * 35 + b"</b>" * 35
    told = await refuses(
        saml(), raw(etree.tostring(root).replace(b"<saml:Subject>", deep + b"<saml:Subject>"))
    )
    assert "too deeply" in told


async def test_the_same_names_may_be_declared_at_each_value() -> None:
    """Some providers do, for a person in many groups."""
    root = etree.fromstring(attrs.evolve(GOOD, attributes=(("email", ("alice@example.com",)),)).text())
    statement = root.find(".//saml:AttributeStatement", NAMES)
    value = '<saml:AttributeValue xmlns:q="urn:q" q:n="">x</saml:AttributeValue>'
    groups = f'<saml:Attribute xmlns:saml="{NAMES["saml"]}" Name="groups">{value * 300}</saml:Attribute>'
    statement.append(etree.fromstring(groups))
    sign(assertion(root))
    xml = etree.tostring(root)
    assert xml.count(b"xmlns:q") == 300
    assert (await shown(saml(), raw(xml))).issuer


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (".//ds:DigestMethod", "methods"),
        (".//ds:CanonicalizationMethod", "methods"),
        (".//ds:SignatureMethod", "methods"),
        (".//ds:SignedInfo", "more than"),
        (".//ds:Reference", "more than"),
        (".//ds:Transforms", "more than"),
        (".//ds:Transform", "more than"),
        (".//ds:DigestValue", "more than"),
    ],
)
async def test_what_is_signed_of_a_signature_holds_nothing_else(path: str, why: str) -> None:
    """It is put into canonical form before anything is proved."""
    root = GOOD.tree()
    for _ in range(3):
        etree.SubElement(root.find(path, NAMES), "b")
    assert why in await refuses(saml(), root)


async def test_one_list_of_names_goes_with_an_exclusive_method() -> None:
    for canonical, most in ((xmlsec.Transform.EXCL_C14N, 1), (xmlsec.Transform.C14N, 0)):
        root = etree.fromstring(GOOD.text())
        sign(assertion(root), canonical=canonical)
        method = etree.fromstring(etree.tostring(root)).find(".//ds:CanonicalizationMethod", NAMES)
        document = method.getroottree().getroot()
        for number in range(2):
            listed = etree.SubElement(method, "{http://www.w3.org/2001/10/xml-exc-c14n#}InclusiveNamespaces")
            listed.set("PrefixList", "xs")
            # The list changes what was signed: it is refused for that, and not for its shape.
            assert ("methods" in await refuses(saml(), document)) is (number >= most)


@pytest.mark.parametrize("name", ["AgreementMethod", "DerivedKey"])
async def test_no_key_is_derived_as_a_stranger_wants_it(name: str) -> None:
    """With as many rounds as they like, for one."""
    root = attrs.evolve(GOOD, encrypts=True).tree()
    info = root.find(".//xenc:EncryptedData/ds:KeyInfo", NAMES)
    etree.SubElement(info, f"{{http://www.w3.org/2009/xmlenc11#}}{name}")
    assert "unusual way" in await refuses(saml(), root)


def _by_reference(root: Any, uri: str) -> None:
    """The cipher text is said to be elsewhere."""
    data = root.find(".//xenc:EncryptedData/xenc:CipherData", NAMES)
    data.remove(data[0])
    etree.SubElement(data, f"{{{NAMES['xenc']}}}CipherReference").set("URI", uri)


def _key_by_reference(root: Any, uri: str) -> None:
    """The key is said to be elsewhere."""
    info = root.find(".//xenc:EncryptedData/ds:KeyInfo", NAMES)
    info.remove(info[0])
    method = etree.SubElement(info, f"{{{NAMES['ds']}}}RetrievalMethod")
    method.set("URI", uri)
    method.set("Type", "http://www.w3.org/2001/04/xmlenc#EncryptedKey")


@pytest.mark.parametrize("place", [_by_reference, _key_by_reference])
async def test_what_is_decrypted_makes_us_read_and_fetch_nothing(
    place: Callable[[Any, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decrypting comes before any proof: the toolkit would open the file or address that a stranger names, and wait
    for it. So it is not asked at all for anything but a name within the document; these lead nowhere."""
    monkeypatch.setattr(response, "_checked_by_toolkit", None)
    for uri in ("#xpointer(/)", "", "# "):
        root = attrs.evolve(GOOD, encrypts=True).tree()
        place(root, uri)
        assert "something outside" in await refuses(saml(), root)


@pytest.mark.parametrize(
    "uri", ["file:///x", "/x", "x", "http://127.0.0.1:9/", "//x", "#a/b", "#a b", " #a", "#a\n"]
)
def test_only_a_name_is_a_place_within_the_document(uri: str) -> None:
    assert message._HERE.fullmatch("#_assertion1")
    assert message._HERE.fullmatch(uri) is None


async def test_a_signature_has_one_reference_and_an_element_one_signature() -> None:
    twice = GOOD.tree()
    info = twice.find(".//ds:SignedInfo", NAMES)
    info.append(copy.deepcopy(info.find("ds:Reference", NAMES)))
    await refuses(saml(), twice)
    signed = GOOD.tree()
    element = assertion(signed)
    element.insert(2, copy.deepcopy(element.find("ds:Signature", NAMES)))
    await refuses(saml(), signed)


WRONG: Mapping[str, tuple[Answer, str]] = {
    "expired": (attrs.evolve(GOOD, not_on_or_after=-61, not_before=-300), "no more"),
    "expired to bring": (attrs.evolve(GOOD, confirmed_until=-61), "log of the server"),
    "session over": (attrs.evolve(GOOD, session_until=-1), "log of the server"),
    "not yet valid": (attrs.evolve(GOOD, not_before=120), "not hold yet"),
    "other audience": (attrs.evolve(GOOD, audiences=("urn:other",)), "log of the server"),
    "no audience": (attrs.evolve(GOOD, audiences=()), "not for us"),
    "audience that begins like us": (attrs.evolve(GOOD, audiences=(f"{SP}/other",)), "log of the server"),
    "other recipient": (
        attrs.evolve(GOOD, recipient="http://other.test/auth/saml/callback"),
        "log of the server",
    ),
    "no recipient": (attrs.evolve(GOOD, recipient=None), "another address"),
    "other destination": (attrs.evolve(GOOD, destination="http://other.test/"), "log of the server"),
    "other request": (attrs.evolve(GOOD, request_id="_r", confirmed_request_id="_r"), "log of the server"),
    "other request outside": (attrs.evolve(GOOD, request_id="_r"), "log of the server"),
    "other request inside": (attrs.evolve(GOOD, confirmed_request_id="_r"), "log of the server"),
    "no request": (attrs.evolve(GOOD, request_id=None, confirmed_request_id=None), "no request of ours"),
    "no request inside": (attrs.evolve(GOOD, confirmed_request_id=None), "no request of ours"),
    "no request outside": (attrs.evolve(GOOD, request_id=None), "no request of ours"),
    "other issuer": (attrs.evolve(GOOD, issuer="urn:other:idp"), "log of the server"),
    "not for bearers": (attrs.evolve(GOOD, method="holder-of-key"), "log of the server"),
    "no end": (attrs.evolve(GOOD, confirmed_until=None), "until when"),
    "not a success": (attrs.evolve(GOOD, status="Responder"), "Responder"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_signed_answer_for_somebody_else_or_another_time_is_refused(
    name: str, encrypted: bool
) -> None:
    answer, why = WRONG[name]
    assert why in await refuses(saml(), attrs.evolve(answer, encrypts=encrypted).encoded())


OTHER_PLACES = ("http://other.test/auth/saml/callback", ACS[:-1], ACS.upper())


@pytest.mark.parametrize("place", OTHER_PLACES)
def test_our_own_look_takes_an_address_for_ours_when_it_is_the_very_one(place: str) -> None:
    """The toolkit looks whether theirs begins with ours or holds it, which others do as well. We ask neither: ours is
    tried here without the toolkit, with addresses that it refuses too."""
    one = saml()
    elsewhere = attrs.evolve(GOOD, destination=place).tree()
    with pytest.raises(Forbidden, match="another address"):
        response._check_response(elsewhere, one.settings, REQUEST)
    response._check_response(GOOD.tree(), one.settings, REQUEST)
    how: dict[str, Any] = {"request_id": REQUEST, "now": datetime.now(UTC), "skew": response.SKEW}
    with pytest.raises(Forbidden, match="another address"):
        read_assertion(assertion(attrs.evolve(GOOD, recipient=place).tree()), one.settings, **how)
    assert read_assertion(assertion(GOOD.tree()), one.settings, **how).issuer


async def test_an_answer_to_another_request_is_no_answer_to_this() -> None:
    await refuses(saml(), GOOD.encoded(), request="ONELOGIN_another")


async def test_a_good_answer_is_good_for_minutes_alone() -> None:
    """By our own clock, which the test turns on."""
    one, answer = saml(), attrs.evolve(GOOD, not_on_or_after=300, confirmed_until=300).encoded()
    assert (await shown(one, answer)).issuer
    assert "no more" in await refuses(one, answer, later=361)
    assert "not hold yet" in await refuses(one, answer, later=-120)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_comment_does_not_cut_a_name_short(encrypted: bool) -> None:
    """``admin<!---->@evil.example`` is signed as ``admin@evil.example``, and many readers take ``admin``."""
    root = attrs.evolve(GOOD, name_id="admin@evil.example").tree()
    name = root.find(".//saml:NameID", NAMES)
    name.text = "admin"
    name.append(etree.Comment("x"))
    name[0].tail = "@evil.example"
    if encrypted:
        encrypt(root)
    assert ("comments" in await refuses(saml(), root)) is not encrypted


DOCUMENTS: Mapping[str, Callable[[bytes], bytes]] = {
    "dtd": lambda xml: b"<!DOCTYPE Response>" + xml,
    "dtd elsewhere": lambda xml: b'<!DOCTYPE r SYSTEM "http://127.0.0.1:9/x.dtd">' + xml,
    "xxe": lambda xml: (
        b'<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + xml.replace(b"alice@example.com", b"&e;")
    ),
    "xxe by parameter": lambda xml: b'<!DOCTYPE r [<!ENTITY % e SYSTEM "http://127.0.0.1:9/"> %e;]>' + xml,
    "billion laughs": lambda xml: (
        b'<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
        + xml.replace(b"alice@example.com", b"&c;")
    ),
    "entity that nobody declared": lambda xml: xml.replace(b"alice@example.com", b"&e;"),
    "comment": lambda xml: xml.replace(b"alice@", b"alice<!-- -->@"),
    "cdata": lambda xml: xml.replace(b"alice@example.com", b"<![CDATA[admin]]>"),
    "stylesheet": lambda xml: b'<?xml-stylesheet href="file:///etc/passwd"?>' + xml,
    "instruction inside": lambda xml: xml.replace(b"alice@", b"alice<?x y?>@"),
    "utf-16": lambda xml: xml.decode().encode("utf-16"),
    "utf-7": lambda xml: (
        b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE r SYSTEM "file:///etc/passwd"+AD4-' + xml
    ),
    "declared as utf-16": lambda xml: b'<?xml version="1.0" encoding="utf-16"?>' + xml,
    "included": lambda xml: xml.replace(
        b"<saml:Subject>",
        b'<saml:Subject><x:include xmlns:x="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/>',
        1,
    ),
    "nul": lambda xml: xml.replace(b"alice@", b"alice\0@"),
    "two documents": lambda xml: xml + xml,
    "cut": lambda xml: xml[: len(xml) // 2],
    "empty": lambda xml: b"",
    "no xml": lambda xml: b"SAMLResponse",
    "other xml": lambda xml: b"<html><body/></html>",
    "deep": lambda xml: b"<a>" * 40 + b"</a>" * 40,
    "wide": lambda xml: b"<a " + b" ".join(b'a%d="1"' % n for n in range(70)) + b"/>",
    "many namespaces": lambda xml: (
        b"<a " + b" ".join(b'xmlns:a%d="urn:%d"' % (n, n) for n in range(40)) + b"/>"
    ),
    "request": lambda xml: (
        b'<samlp:AuthnRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_1" Version="2.0"/>'
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_a_document_that_is_more_or_less_than_an_answer_is_refused(name: str) -> None:
    made = raw(DOCUMENTS[name](etree.tostring(GOOD.tree())))
    assert "root:" not in await refuses(saml(), made)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("A" * (256 * 1024 + 4), PayloadTooLarge),
        ("not base64!", BadRequest),
        ("äöü", BadRequest),
        ("", BadRequest),
        ("\0", BadRequest),
        ("PHg+", BadRequest),
        ("PHgvPg==", Forbidden),
        ("A" * (256 * 1024), BadRequest),
    ],
)
async def test_what_is_no_base64_of_an_answer_is_refused(answer: str, error: type[GpustackError]) -> None:
    with pytest.raises(error):
        await shown(saml(), answer)


def touched(part: str) -> Any:
    root = attrs.evolve(GOOD, encrypts=True).tree()
    values = root.findall(".//xenc:CipherValue", NAMES)
    if part == "swapped":
        values[0].text, values[1].text = values[1].text, values[0].text
        return root
    target, at = (
        (values[0], -20) if part == "key" else (values[1], {"data": -20, "start": 20, "padding": -1}[part])
    )
    content = bytearray(base64.b64decode(target.text))
    content[at] ^= 1
    target.text = base64.b64encode(bytes(content)).decode()
    return root


INSIDE: Mapping[str, bytes] = {
    "no xml": b"no xml",
    "not utf-8": b"\xff\xfe",
    "a forged line": b"<x>\n2026-01-01 00:00:00 - gpustack - INFO - all is well\n<",
    "comment": b"<!-- --><x/>",
    "entity": b"<x>&e;</x>",
    "two elements": b"<x/><x/>",
    "nothing": b"",
    "end of the holder": b"</around><around>",
    "another element": b"<x/>",
}


@pytest.mark.parametrize("part", ["key", "data", "start", "padding", "swapped", *INSIDE])
async def test_an_encrypted_assertion_that_was_touched_tells_nothing(
    part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each failure inside reads the same: nobody learns the text by asking many times, nor writes to our terminal."""
    root = touched(part) if part not in INSIDE else attrs.evolve(GOOD, encrypts=True).tree()
    if part in INSIDE:
        encrypt(root, content=INSIDE[part])
    told = await refuses(saml(), root)
    forged_inside = attrs.evolve(GOOD, signer="stranger", encrypts=True).encoded()
    assert told == await refuses(saml(), forged_inside)
    assert capfd.readouterr().err == ""


async def test_a_forged_assertion_inside_the_encryption_is_not_believed() -> None:
    """Our certificate is public: anybody encrypts for us."""
    root = GOOD.tree()
    original = assertion(root)
    root.replace(original, forged(original, keeps_signature=True))
    encrypt(root)
    await refuses(saml(), root)
    both = GOOD.tree()
    more = forged(assertion(both))
    encrypt(both)
    both.append(more)
    await refuses(saml(), both)


@pytest.mark.parametrize(
    ("cipher", "wrapping"), [("aes128-cbc", "rsa-1_5"), ("tripledes-cbc", "rsa-oaep-mgf1p")]
)
async def test_encryption_that_can_be_asked_open_is_refused(cipher: str, wrapping: str) -> None:
    answer = attrs.evolve(GOOD, encrypts=True, cipher=cipher, wrapping=wrapping).encoded()
    assert "algorithm" in await refuses(saml(), answer)


async def test_an_encrypted_assertion_needs_a_key_of_ours() -> None:
    one = saml(saml_sp_private_key=None, saml_sp_x509_cert=None)
    await refuses(one, attrs.evolve(GOOD, encrypts=True).encoded())


async def test_a_plain_assertion_is_refused_where_encrypted_ones_are_wanted() -> None:
    one = saml(saml_security='{"wantAssertionsEncrypted": true}')
    await refuses(one, GOOD.encoded())
    assert (await shown(one, attrs.evolve(GOOD, encrypts=True).encoded())).issuer


async def test_what_must_be_signed_must_be() -> None:
    """One signature is enough unless the other was asked for."""
    only_response = attrs.evolve(GOOD, signs_assertion=False, signs_response=True).encoded()
    await refuses(strictness("both"), GOOD.encoded())
    await refuses(strictness("both"), only_response)
    await refuses(strictness("messages"), GOOD.encoded())
    await refuses(strictness("nothing set"), only_response)
    for security in ("messages", "either"):
        assert (await shown(strictness(security), only_response)).issuer


async def test_an_attribute_that_comes_twice_is_ambiguous() -> None:
    twice = (*GOOD.attributes, ("uid", ("admin",)))
    assert "twice" in await refuses(saml(), attrs.evolve(GOOD, attributes=twice).encoded())


@pytest.mark.parametrize("status", ["Responder", "evil<script>", "x" * 5000, "../../../etc/passwd"])
async def test_a_refusal_of_the_provider_says_no_more_than_a_word(status: str) -> None:
    root = GOOD.tree()
    root.find(".//samlp:StatusCode", NAMES).set("Value", f"urn:oasis:names:tc:SAML:2.0:status:{status}")
    told = await refuses(saml(), root)
    assert "did not sign you in" in told
    assert len(told) < 200 and "<" not in told

"""Answers as an identity provider signs them, with anything in them that a test wants: good ones and bad ones.

One answer is signed once a run, and good for an hour.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

import attrs
import xmlsec
from lxml import etree

from gpustack.config.options import Options
from gpustack.identity.saml.provider import SamlProvider
from tests.saml.keys import pair

IDP = "urn:tests:idp"
SP = "http://gpustack.test/saml/sp"
ACS = "http://gpustack.test/auth/saml/callback"
SSO = "http://idp.test/sso?tenant=a&b=c"
REQUEST = "ONELOGIN_0123456789abcdef"
EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
ALICE = {"email": ("alice@example.com",), "displayName": ("Alice Liddell",), "uid": ("alice",)}
NAMES = {
    "samlp": "urn:oasis:names:tc:SAML:2.0:protocol",
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
    "xenc": "http://www.w3.org/2001/04/xmlenc#",
}

_ALGORITHMS = {
    "sha256": (xmlsec.Transform.RSA_SHA256, xmlsec.Transform.SHA256),
    "sha512": (xmlsec.Transform.RSA_SHA512, xmlsec.Transform.SHA512),
    "sha1": (xmlsec.Transform.RSA_SHA1, xmlsec.Transform.SHA1),
}


@attrs.frozen(kw_only=True)
class Answer:
    """What an answer says; evolve it to say something else. Times are seconds from now, ``None``: left out."""

    request_id: str | None = REQUEST
    confirmed_request_id: str | None = REQUEST
    issuer: str = IDP
    destination: str | None = ACS
    recipient: str | None = ACS
    audiences: tuple[str, ...] = (SP,)
    not_before: float | None = -5
    not_on_or_after: float | None = 3600
    confirmed_until: float | None = 3600
    session_until: float | None = 3600
    method: str = "bearer"
    name_id: str | None = "alice@example.com"
    name_format: str = EMAIL
    name_qualifiers: str = ""
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = tuple(ALICE.items())
    status: str = "Success"
    identity: str = "_assertion1"
    signer: str = "idp"
    algorithm: str = "sha256"
    signs_assertion: bool = True
    signs_response: bool = False
    encrypts: bool = False
    cipher: str = "aes128-cbc"
    wrapping: str = "rsa-oaep-mgf1p"

    def text(self) -> str:
        """The XML, not signed."""
        now = datetime.now(UTC)

        def at(name: str, seconds: float | None) -> str:
            if seconds is None:
                return ""
            return f' {name}="{(now + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")}"'

        def also(name: str, value: str | None) -> str:
            return "" if value is None else f' {name}="{escape(value)}"'

        issued = at("IssueInstant", 0)
        name = (
            ""
            if self.name_id is None
            else (
                f'<saml:NameID Format="{self.name_format}"{self.name_qualifiers}>{escape(self.name_id)}</saml:NameID>'
            )
        )
        audience = "".join(f"<saml:Audience>{escape(one)}</saml:Audience>" for one in self.audiences)
        restriction = f"<saml:AudienceRestriction>{audience}</saml:AudienceRestriction>" if audience else ""
        attributes = "".join(
            f'<saml:Attribute Name="{escape(key)}">'
            + "".join(
                f'<saml:AttributeValue xsi:type="xs:string">{escape(value)}</saml:AttributeValue>'
                for value in values
            )
            + "</saml:Attribute>"
            for key, values in self.attributes
        )
        statement = f"<saml:AttributeStatement>{attributes}</saml:AttributeStatement>" if attributes else ""
        return (
            f'<samlp:Response xmlns:samlp="{NAMES["samlp"]}" xmlns:saml="{NAMES["saml"]}"'
            ' xmlns:xs="http://www.w3.org/2001/XMLSchema" ID="_response1" Version="2.0"'
            f"{issued}{also('Destination', self.destination)}{also('InResponseTo', self.request_id)}>"
            f"<saml:Issuer>{escape(self.issuer)}</saml:Issuer>"
            f'<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:{self.status}"/></samlp:Status>'
            '<saml:Assertion xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
            f' ID="{self.identity}" Version="2.0"{issued}>'
            f"<saml:Issuer>{escape(self.issuer)}</saml:Issuer>"
            f"<saml:Subject>{name}"
            f'<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:{self.method}">'
            f"<saml:SubjectConfirmationData{at('NotOnOrAfter', self.confirmed_until)}"
            f"{also('Recipient', self.recipient)}{also('InResponseTo', self.confirmed_request_id)}/>"
            "</saml:SubjectConfirmation></saml:Subject>"
            f"<saml:Conditions{at('NotBefore', self.not_before)}{at('NotOnOrAfter', self.not_on_or_after)}>"
            f"{restriction}</saml:Conditions>"
            f'<saml:AuthnStatement AuthnInstant="{now.strftime("%Y-%m-%dT%H:%M:%SZ")}" SessionIndex="_s1"'
            f"{at('SessionNotOnOrAfter', self.session_until)}><saml:AuthnContext><saml:AuthnContextClassRef>"
            "urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef></saml:AuthnContext>"
            f"</saml:AuthnStatement>{statement}</saml:Assertion></samlp:Response>"
        )

    def tree(self) -> Any:
        """The XML, signed and encrypted as it says, as an element to work on."""
        # Read anew: lxml does not find what xmlsec has put into a tree of its own.
        return etree.fromstring(_signed(self))

    def encoded(self) -> str:
        """As a browser brings it."""
        return packed(self.tree())


@cache
def _signed(answer: Answer) -> bytes:
    root = etree.fromstring(answer.text())
    if answer.signs_assertion:
        sign(assertion(root), signer=answer.signer, algorithm=answer.algorithm)
    if answer.encrypts:
        encrypt(root, cipher=answer.cipher, wrapping=answer.wrapping)
    if answer.signs_response:
        sign(root, signer=answer.signer, algorithm=answer.algorithm)
    made: bytes = etree.tostring(root)
    return made


def assertion(root: Any) -> Any:
    return root.find("saml:Assertion", NAMES)


def packed(root: Any) -> str:
    """The base64 of an element."""
    return base64.b64encode(etree.tostring(root)).decode()


def sign(
    element: Any,
    *,
    signer: str = "idp",
    algorithm: str = "sha256",
    canonical: Any = xmlsec.Transform.EXCL_C14N,
    prefixes: str = "xs",
    known: str | None = None,
) -> Any:
    """Put a signature after the issuer of an element; ``known`` is whose certificate goes along."""
    signature_method, digest_method = _ALGORITHMS[algorithm]
    node = xmlsec.template.create(element, canonical, signature_method, ns="ds")
    element.insert(1, node)
    reference = xmlsec.template.add_reference(node, digest_method, uri=f"#{element.get('ID')}")
    xmlsec.template.add_transform(reference, xmlsec.Transform.ENVELOPED)
    transform = xmlsec.template.add_transform(reference, xmlsec.Transform.EXCL_C14N)
    if prefixes:
        listed = etree.SubElement(transform, "{http://www.w3.org/2001/10/xml-exc-c14n#}InclusiveNamespaces")
        listed.set("PrefixList", prefixes)
    xmlsec.template.add_x509_data(xmlsec.template.ensure_key_info(node))
    xmlsec.tree.add_ids(element, ["ID"])
    made = xmlsec.SignatureContext()
    pem = xmlsec.KeyFormat.PEM
    made.key = xmlsec.Key.from_memory(pair(signer).key, pem, None)
    made.key.load_cert_from_memory(pair(known or signer).certificate, pem)
    made.sign(node)
    return node


def encrypt(
    root: Any, *, cipher: str = "aes128-cbc", wrapping: str = "rsa-oaep-mgf1p", content: bytes | None = None
) -> None:
    """Put an encrypted assertion in the place of the one that is there, for the key of the service provider.

    With ``content`` it is that which is encrypted.
    """
    methods = {
        "aes128-cbc": (xmlsec.Transform.AES128, xmlsec.KeyData.AES, 128),
        "aes256-gcm": (xmlsec.Transform.AES256_GCM, xmlsec.KeyData.AES, 256),
        "tripledes-cbc": (xmlsec.Transform.DES3, xmlsec.KeyData.DES, 192),
    }
    transport = {"rsa-oaep-mgf1p": xmlsec.Transform.RSA_OAEP, "rsa-1_5": xmlsec.Transform.RSA_PKCS1}
    method, kind, bits = methods[cipher]
    data = xmlsec.template.encrypted_data_create(root, method, type=xmlsec.EncryptionType.ELEMENT, ns="xenc")
    xmlsec.template.encrypted_data_ensure_cipher_value(data)
    info = xmlsec.template.encrypted_data_ensure_key_info(data, ns="ds")
    key = xmlsec.template.add_encrypted_key(info, transport[wrapping])
    xmlsec.template.encrypted_data_ensure_cipher_value(key)
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(pair("sp").certificate, xmlsec.KeyFormat.CERT_PEM, None))
    context = xmlsec.EncryptionContext(manager)
    context.key = xmlsec.Key.generate(kind, bits, xmlsec.KeyDataType.SESSION)
    wrapper = etree.Element(f"{{{NAMES['saml']}}}EncryptedAssertion")
    (plain,) = root.xpath("./saml:Assertion | ./saml:EncryptedAssertion", namespaces=NAMES)
    root.replace(plain, wrapper)
    if content is None:
        etree.Element("holder").append(plain)
        wrapper.append(context.encrypt_xml(data, plain))
    else:
        wrapper.append(context.encrypt_binary(data, content))


def options(**changes: Any) -> Options:
    """The options that go with these answers."""
    given: dict[str, Any] = {
        "saml_idp_server_url": SSO,
        "saml_idp_entity_id": IDP,
        "saml_idp_x509_cert": pair("idp").certificate,
        "saml_sp_entity_id": SP,
        "saml_sp_acs_url": ACS,
        "saml_sp_x509_cert": pair("sp").certificate,
        "saml_sp_private_key": pair("sp").key,
    }
    return attrs.evolve(Options(), **{**given, **changes})


@cache
def saml(**changes: Any) -> SamlProvider:
    """The product's side of it."""
    return SamlProvider.of(options(**changes))

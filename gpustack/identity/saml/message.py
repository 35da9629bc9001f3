"""The bytes of an answer before anybody believes them: bounded, plain, and of the one shape that answers have.

Whoever can reach us can send these. What is unusual is refused here, before the toolkit looks: a signature over one
element while another one is read (signature wrapping) begins with a document of an unusual shape.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from gpustack.config.saml import (
    DEPRECATED_DIGESTS,
    DEPRECATED_SIGNATURES,
    DIGESTS,
    SIGNATURES,
)
from gpustack.errors import BadRequest, Forbidden, PayloadTooLarge

from .toolkit import toolkit

LONGEST = 256 << 10
"""Characters of an answer in base64; those of real providers have 5 to 30 KiB."""

NAMES = {
    "samlp": "urn:oasis:names:tc:SAML:2.0:protocol",
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
    "xenc": "http://www.w3.org/2001/04/xmlenc#",
    "exc": "http://www.w3.org/2001/10/xml-exc-c14n#",
}
RESPONSE, ASSERTION = f"{{{NAMES['samlp']}}}Response", f"{{{NAMES['saml']}}}Assertion"

_EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
_PLAIN = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
_ENVELOPED = f"{NAMES['ds']}enveloped-signature"
_CANONICAL = {_EXCLUSIVE, f"{_EXCLUSIVE}WithComments", _PLAIN, f"{_PLAIN}#WithComments"}
_TRANSFORMS = {_EXCLUSIVE, f"{_EXCLUSIVE}WithComments", _ENVELOPED}
_ELLIPTIC = tuple(
    f"http://www.w3.org/2001/04/xmldsig-more#ecdsa-{one}" for one in ("sha256", "sha384", "sha512")
)
_CIPHERS = {
    *(f"{NAMES['xenc']}aes{bits}-cbc" for bits in (128, 192, 256)),
    *(f"http://www.w3.org/2009/xmlenc11#aes{bits}-gcm" for bits in (128, 192, 256)),
}
_DEPRECATED_CIPHERS = {f"{NAMES['xenc']}tripledes-cbc"}
_WRAPPINGS = {f"{NAMES['xenc']}rsa-oaep-mgf1p", "http://www.w3.org/2009/xmlenc11#rsa-oaep"}
"""Not RSA 1.5, with which our answers would tell a patient stranger what is inside."""

_DECLARATION = re.compile(r"""\s*<\?xml\s[^>]*?\bencoding\s*=\s*["']([^"']*)["'][^>]*\?>""")
_UNREADABLE = "The identity provider's answer cannot be read"


def decode(answer: str) -> bytes:
    """The XML of an answer. Raises ``PayloadTooLarge``, and ``BadRequest`` for what is no plain XML in UTF-8.

    Declarations of types and entities, comments, CDATA and processing instructions are in no answer of a provider, and
    in many attacks: a document that has any is not parsed at all.
    """
    if len(answer) > LONGEST:
        raise PayloadTooLarge(f"{_UNREADABLE}: it is larger than {LONGEST >> 10} KiB")
    try:
        raw = base64.b64decode("".join(answer.split()), validate=True)
        text = raw.decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{_UNREADABLE}: it is not base64 of a text in UTF-8") from error
    head = _DECLARATION.match(text)
    if head is not None and head[1].lower() not in ("utf-8", "us-ascii", "ascii"):
        raise BadRequest(f"{_UNREADABLE}: it is not in UTF-8")
    body = text.lstrip().removeprefix("<?xml")
    if "\0" in text or "<!" in body or "<?" in body:
        raise BadRequest(f"{_UNREADABLE}: it is not plain XML (no DTD, comments, CDATA or instructions)")
    return raw


def parse(raw: bytes) -> Any:
    """The root of a document: nothing is resolved, fetched or expanded. Raises ``BadRequest``."""
    etree = toolkit().etree
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(raw, parser)
    except etree.XMLSyntaxError as error:
        raise BadRequest(f"{_UNREADABLE}: it is not XML") from error


def check_shape(root: Any, *, deprecated: bool) -> None:
    """Refuse what is no answer with one assertion, signed as providers sign. Raises ``Forbidden``.

    ``deprecated`` allows SHA-1 and Triple DES. Asked twice of an encrypted answer: as it came, and decrypted.
    """
    assertions = query(root, "//saml:Assertion | //saml:EncryptedAssertion")
    if root.tag != RESPONSE or len(query(root, "//samlp:Response")) != 1:
        raise refused("it is no SAML response")
    if query(root, "//comment() | //processing-instruction()"):
        raise refused("it has comments or instructions inside")
    if len(assertions) != 1 or assertions[0].getparent() is not root:
        raise refused("it must hold exactly one assertion")
    ids = query(root, "//@*[translate(local-name(), 'ID', 'id') = 'id']")
    if len(set(ids)) != len(ids):
        raise refused("two of its elements have the same ID")
    owners = [signature.getparent() for signature in query(root, "//ds:Signature")]
    if any(owner is not root and owner is not assertions[0] for owner in owners):
        raise refused("there is a signature at an unusual place")
    if len({id(owner) for owner in owners}) != len(owners):
        raise refused("an element has more than one signature")
    for owner in owners:
        _check_signature(owner, deprecated)
    ciphers = _CIPHERS | _DEPRECATED_CIPHERS if deprecated else _CIPHERS
    for method in query(root, "//xenc:EncryptionMethod"):
        kind = method.getparent().tag.rpartition("}")[2]
        allowed = ciphers if kind == "EncryptedData" else _WRAPPINGS
        if method.get("Algorithm") not in allowed:
            raise refused("it is encrypted by an algorithm that is not accepted")


def signature_of(element: Any) -> Any:
    """The signature of an element itself, or ``None``."""
    found = query(element, "./ds:Signature")
    return found[0] if found else None


def refused(why: str) -> Forbidden:
    """The error for an answer that is not believed."""
    return Forbidden(f"The identity provider's answer is refused: {why}")


def _check_signature(owner: Any, deprecated: bool) -> None:
    signature = signature_of(owner)
    info = _one(signature, "./ds:SignedInfo")
    method, reference = _one(info, "./ds:SignatureMethod"), _one(info, "./ds:Reference")
    digest = _one(reference, "./ds:DigestMethod")
    children = {child.tag.rpartition("}")[2] for child in signature}
    if not children <= {"SignedInfo", "SignatureValue", "KeyInfo"}:
        raise refused("its signature holds more than a signature")
    if not owner.get("ID") or reference.get("URI") != f"#{owner.get('ID')}":
        raise refused("its signature is of something else")
    signatures = (*SIGNATURES, *_ELLIPTIC, *(DEPRECATED_SIGNATURES if deprecated else ()))
    digests = (*DIGESTS, *(DEPRECATED_DIGESTS if deprecated else ()))
    if method.get("Algorithm") not in signatures or len(method) or digest.get("Algorithm") not in digests:
        raise refused("it is signed by an algorithm that is not accepted")
    canonical = _one(info, "./ds:CanonicalizationMethod").get("Algorithm")
    transforms = {one.get("Algorithm") for one in query(reference, "./ds:Transforms/ds:Transform")}
    if canonical not in _CANONICAL or not transforms <= _TRANSFORMS or _ENVELOPED not in transforms:
        raise refused("its signature leaves parts of it out")
    if not transforms & {_EXCLUSIVE, f"{_EXCLUSIVE}WithComments"}:
        raise refused("its signature is not over exclusive canonical XML")


def _one(element: Any, path: str) -> Any:
    found = query(element, path)
    if len(found) != 1:
        raise refused("its signature is incomplete or has parts twice")
    return found[0]


def query(element: Any, path: str) -> list[Any]:
    """What an XPath finds. Not ``find``: it overlooks elements that xmlsec has put into a tree."""
    found: list[Any] = element.xpath(path, namespaces=NAMES)
    return found

"""Checks the bytes and the shape of an answer, before its signatures: bounded, plain XML, one assertion.

Anybody can send an answer. Everything unusual is refused here, before the toolkit reads it: signature wrapping (one
element is signed, another one read) needs a document of an unusual shape.
"""

from __future__ import annotations

import base64
import binascii
import codecs
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
_EXCLUSIVES = {_EXCLUSIVE, f"{_EXCLUSIVE}WithComments"}
_CANONICAL = {*_EXCLUSIVES, _PLAIN, f"{_PLAIN}#WithComments"}
_TRANSFORMS = ({_ENVELOPED, _EXCLUSIVE}, {_ENVELOPED, f"{_EXCLUSIVE}WithComments"})
_ELLIPTIC = tuple(
    f"http://www.w3.org/2001/04/xmldsig-more#ecdsa-{one}" for one in ("sha256", "sha384", "sha512")
)
_CIPHERS = {
    *(f"{NAMES['xenc']}aes{bits}-cbc" for bits in (128, 192, 256)),
    *(f"http://www.w3.org/2009/xmlenc11#aes{bits}-gcm" for bits in (128, 192, 256)),
}
_DEPRECATED_CIPHERS = {f"{NAMES['xenc']}tripledes-cbc"}
_WRAPPINGS = {f"{NAMES['xenc']}rsa-oaep-mgf1p", "http://www.w3.org/2009/xmlenc11#rsa-oaep"}
"""Not RSA 1.5, which our refusals would let an attacker decrypt (Bleichenbacher)."""

_MOST_ATTRIBUTES = 64
_LONGEST_PREFIXES = 128
_MOST_NAMES = 32
"""Different namespace prefixes. Real answers have a dozen, and may declare the same two at each value."""
_DEEPEST = 32
"""Levels of nesting."""
_MOST_PARTS = 10
"""Elements inside ``SignedInfo``: enough for its methods and transforms with all they may contain."""
_MOST_KEYS = 4
"""Keys that an answer is encrypted for; each is tried."""
_UNUSUAL = " | ".join(
    f"//*[local-name() = '{name}']"
    for name in ("CipherReference", "AgreementMethod", "DerivedKey", "KeyInfoReference")
)
"""Elements that make the reader compute or fetch a key or text."""
_HERE = re.compile(r"#[A-Za-z_][\w.-]*", re.ASCII)
"""A reference within the document."""
_DECLARATION = re.compile(rb"""\s*<\?xml(?=\s)(\s[^>?]*?\bencoding\s*=\s*["']([^"']*)["'])?[^>?]*\?>""")
_NAMESPACE = re.compile(rb"xmlns(?::[^\s=]*)?")
_LONGEST_DECLARATION = 512
"""Bytes. A longer one is not accepted: finding its end takes quadratic time."""
_UNREADABLE = "The identity provider's answer cannot be read"


def decode(answer: str) -> bytes:
    """The XML of an answer. Raises ``PayloadTooLarge``, and ``BadRequest`` for what is not plain XML in UTF-8.

    A document with a DTD, entities, comments, CDATA or processing instructions is not parsed at all: providers send
    none of these, attackers do.
    """
    if len(answer) > LONGEST:
        raise PayloadTooLarge(f"{_UNREADABLE}: it is larger than {LONGEST >> 10} KiB")
    try:
        raw = base64.b64decode("".join(answer.split()), validate=True).removeprefix(codecs.BOM_UTF8)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{_UNREADABLE}: it is not base64") from error
    head = _DECLARATION.match(raw[:_LONGEST_DECLARATION])
    if head is not None and (head[2] or b"utf-8").lower() not in (b"utf-8", b"us-ascii", b"ascii"):
        raise BadRequest(f"{_UNREADABLE}: it is not in UTF-8")
    return plain(raw if head is None else raw[head.end() :])


def plain(raw: bytes) -> bytes:
    """The same bytes, if they are elements and text in UTF-8. Raises ``BadRequest`` for anything else."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{_UNREADABLE}: it is not in UTF-8") from error
    if "\0" in text or "<!" in text or "<?" in text:
        raise BadRequest(f"{_UNREADABLE}: it is not plain XML (no DTD, comments, CDATA or instructions)")
    # Canonical XML takes quadratic time in the prefixes in scope, at each element, and XPath cannot count them.
    if len(set(_NAMESPACE.findall(raw))) > _MOST_NAMES:
        raise BadRequest(f"{_UNREADABLE}: it has too many namespaces")
    return raw


def parse(raw: bytes) -> Any:
    """The root of a document, parsed without entities and network. Raises ``BadRequest``."""
    etree = toolkit().etree
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(raw, parser)
    except etree.XMLSyntaxError as error:
        raise BadRequest(f"{_UNREADABLE}: it is not XML") from error


def check_shape(root: Any, *, deprecated: bool) -> None:
    """Raise ``Forbidden`` unless it is an answer with one assertion, signed in the usual way.

    ``deprecated`` allows SHA-1 and Triple DES. An encrypted answer is checked twice: as it came, and decrypted.
    """
    # Measured: canonical XML with thousands of either takes seconds to minutes, before any signature is checked.
    if query(root, f"//*[count(@*) > {_MOST_ATTRIBUTES}]") or query(
        root, f"//@PrefixList[string-length() > {_LONGEST_PREFIXES}]"
    ):
        raise refused("one of its elements has too many attributes or names")
    # A prefix that is declared again at each level counts at each.
    if query(root, f"//*[count(ancestor::*) > {_DEEPEST}]"):
        raise refused("its elements are nested too deeply")
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
    _check_encryption(root, deprecated)


def signature_of(element: Any) -> Any:
    """The signature that is a child of an element, or ``None``."""
    found = query(element, "./ds:Signature")
    return found[0] if found else None


def refused(why: str) -> Forbidden:
    """The error for an answer that is refused."""
    return Forbidden(f"The identity provider's answer is refused: {why}")


def _check_encryption(root: Any, deprecated: bool) -> None:
    """Refuse what would make us read files, fetch addresses or compute long: decryption comes before the signature."""
    if any(_HERE.fullmatch(uri) is None for uri in query(root, "//@URI")):
        raise refused("it refers to something outside")
    parts = query(root, "//xenc:EncryptedData"), query(root, "//xenc:EncryptedKey")
    if len(parts[0]) > 1 or len(parts[1]) > _MOST_KEYS or query(root, _UNUSUAL):
        raise refused("it is encrypted in an unusual way")
    ciphers = _CIPHERS | _DEPRECATED_CIPHERS if deprecated else _CIPHERS
    for each, allowed in zip(parts, (ciphers, _WRAPPINGS), strict=True):
        for one in each:
            methods = query(one, "./xenc:EncryptionMethod")
            if len(methods) != 1 or methods[0].get("Algorithm") not in allowed:
                raise refused("it is encrypted by an algorithm that is not accepted")


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
    if method.get("Algorithm") not in signatures or digest.get("Algorithm") not in digests:
        raise refused("it is signed by an algorithm that is not accepted")
    canonicalization = _one(info, "./ds:CanonicalizationMethod")
    canonical = canonicalization.get("Algorithm")
    transforms = [one.get("Algorithm") for one in query(reference, "./ds:Transforms/ds:Transform")]
    # Other transforms leave parts out or execute code, and each one costs time before the signature is checked.
    if canonical not in _CANONICAL or len(transforms) != 2 or set(transforms) not in _TRANSFORMS:
        raise refused("its signature is not over itself in exclusive canonical XML")
    listed = query(canonicalization, "./exc:InclusiveNamespaces") if canonical in _EXCLUSIVES else []
    if len(method) or len(digest) or len(listed) > 1 or len(canonicalization) != len(listed):
        raise refused("one of its methods of signing holds something unusual")
    if len(query(info, ".//*")) > _MOST_PARTS:
        raise refused("its signature holds more than a signature")


def _one(element: Any, path: str) -> Any:
    found = query(element, path)
    if len(found) != 1:
        raise refused("its signature is incomplete or has parts twice")
    return found[0]


def query(element: Any, path: str) -> list[Any]:
    """What an XPath finds. (lxml's ``find`` misses elements that xmlsec has inserted.)"""
    found: list[Any] = element.xpath(path, namespaces=NAMES)
    return found

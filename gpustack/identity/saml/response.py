"""Verifies an answer of the identity provider: what it proves, if anything.

Three checks, each of which refuses on its own: the shape of the document (``message``), the toolkit's check of
signatures and SAML rules, and a second computation of the signed digest. The assertion is read from the bytes whose
digest was signed, parsed again, never from the document that came.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from gpustack.errors import Forbidden

from .assertion import Assertion, read_assertion
from .message import RESPONSE, check_shape, decode, parse, plain, query, refused, signature_of
from .settings import SamlSettings
from .toolkit import toolkit

log = logging.getLogger(__name__)

SKEW = timedelta(seconds=60)
"""The allowed difference of the two clocks."""

_SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
_HASHES: dict[str, Callable[[bytes], Any]] = {
    "sha1": hashlib.sha1,
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
}


def verify(settings: SamlSettings, library: Any, answer: str, *, request_id: str, now: datetime) -> Assertion:
    """The assertion of ``answer`` (base64) to the request ``request_id``. Blocking, about 20 ms: call it in a thread.

    ``library`` are the toolkit's settings. Raises ``PayloadTooLarge``, ``BadRequest`` for what is no SAML answer, and
    ``Forbidden`` for one that is not signed by the provider, not for us, not for this request, or not valid now.
    """
    raw = decode(answer)
    root = parse(raw)
    _check_status(root)
    deprecated = not settings.security["rejectDeprecatedAlgorithm"]
    check_shape(root, deprecated=deprecated)
    if settings.sp_key is None and query(root, "./saml:EncryptedAssertion"):
        raise refused("it is encrypted, and there is no saml_sp_private_key to read it with")
    document, opened = _checked_by_toolkit(settings, library, raw, request_id, deprecated)
    _check_response(root, settings, request_id)
    assertion = _signed_assertion(document, opened)
    return read_assertion(assertion, settings, request_id=request_id, now=now, skew=SKEW)


def _check_status(root: Any) -> None:
    """Raise ``Forbidden`` with the provider's reason for a refusal. It need not be signed: it admits nobody."""
    codes = query(root, "/samlp:Response/samlp:Status//samlp:StatusCode")
    if root.tag != RESPONSE or not codes:
        raise refused("it is no SAML response")
    if codes[0].get("Value") != _SUCCESS:
        words = [one.get("Value", "").rpartition(":")[2] for one in codes[:2]]
        told = ", ".join(word for word in words if word.isascii() and word.isalnum() and len(word) <= 64)
        raise Forbidden(f"The identity provider did not sign you in: {told or 'it does not say why'}")


def _checked_by_toolkit(
    settings: SamlSettings, library: Any, raw: bytes, request_id: str, deprecated: bool
) -> tuple[Any, Any]:
    """The document as the toolkit read it, and the same with its assertion decrypted; both passed its checks."""
    try:
        response = _reader()(library, base64.b64encode(raw).decode())
        opened = response.get_xml_document()
        if opened is not response.document:
            check_shape(opened, deprecated=deprecated)
        response.is_valid(_place(settings), request_id=request_id, raise_exceptions=True)
    # The toolkit and its libraries have no common error, and some raise plain Exceptions: any error means no. Only the
    # log says which step failed: an attacker who was told could decrypt by trying many times (a padding oracle).
    except Exception as error:
        log.info("An answer of the identity provider does not hold: reason=%s", _one_line(error))
        raise refused(
            "it is not signed by the configured certificate, not for this server, or too old or too early (compare the "
            "clocks); the log of the server says which"
        ) from error
    return response.document, opened


@cache
def _reader() -> Any:
    """The toolkit's class for answers, with our decryption."""
    tools = toolkit()

    class Reader(tools.Response):  # type: ignore[misc, name-defined]
        def _decrypt_assertion(self, xml: Any) -> Any:
            return open_assertion(xml, self._settings.get_sp_key(), tools.xmlsec, tools.etree)

    return Reader


def open_assertion(document: Any, key: str, xmlsec: Any, etree: Any) -> Any:
    """The document with the decrypted assertion in place of the encrypted one. Its shape must have been checked.

    The content is checked like the answer itself, since everybody can encrypt for us. (The toolkit would parse it in
    place: it ignores comments there, and prints content that is no XML to standard error.) Raises ``Forbidden`` or
    ``BadRequest`` for content that is no assertion, and an error of xmlsec for what cannot be decrypted.
    """
    wrappers = query(document, "./saml:EncryptedAssertion")
    found = [data for wrapper in wrappers for data in query(wrapper, "./xenc:EncryptedData[./ds:KeyInfo]")]
    if len(wrappers) != 1 or len(found) != 1:
        raise refused("it is encrypted in an unusual way")
    (wrapper,) = wrappers
    data = parse(etree.tostring(found[0], with_tail=False))
    data.attrib.pop("Type", None)  # without it xmlsec returns the bytes, unparsed
    (info,) = query(data, "./ds:KeyInfo")
    for reference in query(info, "./ds:RetrievalMethod"):
        info.remove(reference)
    # Some providers put the keys beside, and refer to them.
    info.extend(parse(etree.tostring(one, with_tail=False)) for one in query(wrapper, "./xenc:EncryptedKey"))
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(key, xmlsec.KeyFormat.PEM, None))
    content = plain(xmlsec.EncryptionContext(manager).decrypt(data))
    # What was encrypted may use the names that stand outside.
    around = etree.tostring(etree.Element("around", nsmap=wrapper.nsmap)).removesuffix(b"/>")
    holder = parse(b"%s>%s</around>" % (around, content))
    if len(holder) != 1 or (holder.text or "").strip() or (holder[0].tail or "").strip():
        raise refused("there is no assertion inside the encryption")
    document.replace(wrapper, holder[0])
    return document


def _place(settings: SamlSettings) -> dict[str, Any]:
    """Where the answer came to, in the toolkit's form: the configured address, whatever the request says."""
    scheme, _, rest = settings.acs_url.partition("://")
    host, slash, path = rest.partition("/")
    return {"https": "on" if scheme == "https" else "off", "http_host": host, "script_name": slash + path}


def _check_response(root: Any, settings: SamlSettings, request_id: str) -> None:
    """Check the envelope, signed or not: the toolkit accepts missing values and longer addresses."""
    if root.get("InResponseTo") != request_id:
        raise refused("it answers no request of ours")
    if root.get("Destination", settings.acs_url) != settings.acs_url:
        raise refused("it is meant for another address")


def _signed_assertion(document: Any, opened: Any) -> Any:
    """The one assertion, parsed from the bytes whose digest was signed."""
    assertions = query(opened, "./saml:Assertion")
    if len(assertions) != 1:
        raise refused("it must hold exactly one assertion")
    if signature_of(assertions[0]) is not None:
        return parse(_digested(assertions[0]))
    if signature_of(document) is None:
        raise refused("neither it nor its assertion is signed")
    signed = query(parse(_digested(document)), "./saml:Assertion")
    # Encrypted, then signed as a whole: the signed document contains the text that was decrypted.
    return signed[0] if signed else parse(_canonical(assertions[0], []))


def _digested(element: Any) -> bytes:
    """The canonical form of an element without its signature, whose digest must be the one in that signature."""
    reference = query(signature_of(element), "./ds:SignedInfo/ds:Reference")[0]
    listed = query(reference, "./ds:Transforms/ds:Transform/exc:InclusiveNamespaces/@PrefixList")
    prefixes = " ".join(listed).split()
    whole = parse(_canonical(element, prefixes))
    _remove(whole, signature_of(whole))
    made = _canonical(whole, prefixes)
    method = query(reference, "./ds:DigestMethod/@Algorithm")[0]
    told = "".join("".join(query(reference, "./ds:DigestValue/text()")).split())
    digest = base64.b64encode(_HASHES[method.rpartition("#")[2]](made).digest()).decode()
    if not hmac.compare_digest(digest.encode(), told.encode("utf-8", "replace")):
        raise refused("what it says is not what was signed")
    return made


def _canonical(element: Any, prefixes: list[str]) -> bytes:
    etree = toolkit().etree
    names = [prefix for prefix in prefixes if prefix != "#default" and prefix in element.nsmap]
    how = {"exclusive": True, "with_comments": False, "with_tail": False, "inclusive_ns_prefixes": names}
    try:
        made: bytes = etree.tostring(element, method="c14n", **how)
    except etree.C14NError as error:
        raise refused("it has no canonical form") from error
    return made


def _remove(parent: Any, child: Any) -> None:
    """Remove an element, but not the text after it."""
    before = child.getprevious()
    if before is None:
        parent.text = (parent.text or "") + (child.tail or "")
    else:
        before.tail = (before.tail or "") + (child.tail or "")
    parent.remove(child)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]

"""Whether an answer of the identity provider proves who somebody is, and what it says then.

Three looks, each of which refuses on its own: our look at the shape (``message``), the toolkit's at signatures and all
it knows of SAML, and ours at the signed bytes. What is believed is read from those bytes alone, parsed anew: not from
the document that came.
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
from .decryption import open_assertion
from .message import RESPONSE, check_shape, decode, parse, query, refused, signature_of
from .settings import SamlSettings
from .toolkit import toolkit

log = logging.getLogger(__name__)

SKEW = timedelta(seconds=60)
"""How far the two clocks may be apart."""

_SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
_HASHES: dict[str, Callable[[bytes], Any]] = {
    "sha1": hashlib.sha1,
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
}


def verify(settings: SamlSettings, library: Any, answer: str, *, request_id: str, now: datetime) -> Assertion:
    """What ``answer`` (base64) says of who asked with ``request_id``. Blocking, some 20 ms: call it in a thread.

    ``library`` are the toolkit's settings. Raises ``PayloadTooLarge``, ``BadRequest`` for what is no answer, and
    ``Forbidden`` for one that proves nothing: not signed by the provider, not for us, not for this request, not now.
    """
    raw = decode(answer)
    root = parse(raw)
    _check_status(root)
    deprecated = not settings.security["rejectDeprecatedAlgorithm"]
    check_shape(root, deprecated=deprecated)
    if settings.sp_key is None and query(root, "./saml:EncryptedAssertion"):
        raise refused("it is encrypted, and there is no saml_sp_private_key to read it with")
    document, opened = _believed(settings, library, raw, request_id, deprecated)
    _check_response(root, settings, request_id)
    assertion = _signed_assertion(document, opened)
    return read_assertion(assertion, settings, request_id=request_id, now=now, skew=SKEW)


def _check_status(root: Any) -> None:
    """A provider that refuses says why, in an answer that need not be signed: it lets nobody in."""
    codes = query(root, "/samlp:Response/samlp:Status//samlp:StatusCode")
    if root.tag != RESPONSE or not codes:
        raise refused("it is no SAML response")
    if codes[0].get("Value") != _SUCCESS:
        words = [one.get("Value", "").rpartition(":")[2] for one in codes[:2]]
        told = ", ".join(word for word in words if word.isascii() and word.isalnum() and len(word) <= 64)
        raise Forbidden(f"The identity provider did not sign you in: {told or 'it does not say why'}")


def _believed(
    settings: SamlSettings, library: Any, raw: bytes, request_id: str, deprecated: bool
) -> tuple[Any, Any]:
    """The document as the toolkit read it, and with its assertion decrypted: signatures and rules hold."""
    try:
        response = _reader()(library, base64.b64encode(raw).decode())
        opened = response.get_xml_document()
        if opened is not response.document:
            check_shape(opened, deprecated=deprecated)
        response.is_valid(_place(settings), request_id=request_id, raise_exceptions=True)
    # The toolkit and the libraries under it have no one error in common, and some are plain Exceptions. Whatever goes
    # wrong in there means no. Which step it was is for the log alone: strangers could decrypt by asking many times.
    except Exception as error:
        log.info("An answer of the identity provider does not hold: reason=%s", _one_line(error))
        raise refused(
            "it is not signed by the configured certificate, not for this server, or too old or too early (compare the "
            "clocks); the log of the server says which"
        ) from error
    return response.document, opened


@cache
def _reader() -> Any:
    """The toolkit's class for answers, with our own way of decrypting."""
    tools = toolkit()

    class Reader(tools.Response):  # type: ignore[misc, name-defined]
        def _decrypt_assertion(self, xml: Any) -> Any:
            return open_assertion(xml, self._settings.get_sp_key(), tools.xmlsec, tools.etree)

    return Reader


def _place(settings: SamlSettings) -> dict[str, Any]:
    """Where the answer came, as the toolkit wants it: always our address as configured, whatever the request says."""
    scheme, _, rest = settings.acs_url.partition("://")
    host, slash, path = rest.partition("/")
    return {"https": "on" if scheme == "https" else "off", "http_host": host, "script_name": slash + path}


def _check_response(root: Any, settings: SamlSettings, request_id: str) -> None:
    """The envelope, signed or not, must agree: the toolkit lets some of it be absent, or begin like ours."""
    if root.get("InResponseTo") != request_id:
        raise refused("it answers no request of ours")
    if root.get("Destination", settings.acs_url) != settings.acs_url:
        raise refused("it is meant for another address")


def _signed_assertion(document: Any, opened: Any) -> Any:
    """The one assertion, out of the very bytes whose digest was signed."""
    assertions = query(opened, "./saml:Assertion")
    if len(assertions) != 1:
        raise refused("it must hold exactly one assertion")
    if signature_of(assertions[0]) is not None:
        return parse(_digested(assertions[0]))
    if signature_of(document) is None:
        raise refused("neither it nor its assertion is signed")
    signed = query(parse(_digested(document)), "./saml:Assertion")
    # Encrypted, and then signed as a whole: what was signed is the very text that was decrypted.
    return signed[0] if signed else parse(_canonical(assertions[0], []))


def _digested(element: Any) -> bytes:
    """The canonical form of an element without its signature, if its digest is the one in that signature."""
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
    """Take an element out, and leave the text after it."""
    before = child.getprevious()
    if before is None:
        parent.text = (parent.text or "") + (child.tail or "")
    else:
        before.tail = (before.tail or "") + (child.tail or "")
    parent.remove(child)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]

"""The keys that ``saml_security`` may hold, and what must hold of the SAML options together. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from gpustack.config.options import Options
from gpustack.config.origin import OptionFault
from gpustack.config.value import quote

_DSIG, _MORE = "http://www.w3.org/2000/09/xmldsig#", "http://www.w3.org/2001/04/xmldsig-more#"
_XMLENC = "http://www.w3.org/2001/04/xmlenc#"
SIGNATURES = tuple(f"{_MORE}{name}" for name in ("rsa-sha256", "rsa-sha384", "rsa-sha512"))
DIGESTS = (f"{_XMLENC}sha256", f"{_MORE}sha384", f"{_XMLENC}sha512")
DEPRECATED_SIGNATURES = (f"{_DSIG}rsa-sha1",)
DEPRECATED_DIGESTS = (f"{_DSIG}sha1",)

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
KEPT = ("saml_idp_x509_cert", "saml_sp_x509_cert", "saml_sp_private_key")
"""Options that hold a certificate or a key, or name the file that does."""
_NEEDED = ("saml_idp_entity_id", "saml_idp_x509_cert", "saml_sp_entity_id", "saml_sp_acs_url")


@attrs.frozen
class SecuritySetting:
    """One key of the JSON object: its default, and the values that it takes."""

    default: Any
    kind: str
    choices: tuple[str, ...] = ()
    only: bool | None = None
    """The one value it may have, where the other would remove a protection or needs what is not built; ``why``."""
    why: str = ""

    def fault(self, value: Any) -> str | None:
        """What is wrong with ``value``; the end of a sentence that begins with the key."""
        if not _is_of_kind(self.kind, value):
            return f"must be {self.kind}, not {quote(json.dumps(value))}"
        if self.only is not None and value is not self.only:
            return f"must be {json.dumps(self.only)}: {self.why}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}, not {quote(str(value))}"
        return None


_FLAG, _TEXT, _TIME, _CONTEXTS = "true or false", "a text", "a text or null", "true, false or a list of texts"

SECURITY: Mapping[str, SecuritySetting] = {
    "strict": SecuritySetting(True, _FLAG, only=True, why="nothing is checked otherwise"),
    "wantAssertionsSigned": SecuritySetting(True, _FLAG),
    "wantMessagesSigned": SecuritySetting(False, _FLAG),
    "wantAssertionsEncrypted": SecuritySetting(False, _FLAG),
    "wantNameId": SecuritySetting(False, _FLAG),
    "wantNameIdEncrypted": SecuritySetting(
        False, _FLAG, only=False, why="encrypt the assertion instead (wantAssertionsEncrypted)"
    ),
    "wantAttributeStatement": SecuritySetting(False, _FLAG),
    "allowRepeatAttributeName": SecuritySetting(False, _FLAG),
    "rejectDeprecatedAlgorithm": SecuritySetting(True, _FLAG),
    "authnRequestsSigned": SecuritySetting(None, _FLAG),
    "signMetadata": SecuritySetting(False, _FLAG),
    "signatureAlgorithm": SecuritySetting(SIGNATURES[0], _TEXT, choices=SIGNATURES),
    "digestAlgorithm": SecuritySetting(DIGESTS[0], _TEXT, choices=DIGESTS),
    "requestedAuthnContext": SecuritySetting(False, _CONTEXTS),
    "requestedAuthnContextComparison": SecuritySetting(
        "exact", _TEXT, choices=("exact", "minimum", "maximum", "better")
    ),
    "failOnAuthnContextMismatch": SecuritySetting(False, _FLAG),
    "allowSingleLabelDomains": SecuritySetting(True, _FLAG),
    # A provider reads our metadata once and should not expire it; the certificate in it has an end of its own.
    "metadataValidUntil": SecuritySetting("2099-12-31T00:00:00Z", _TIME),
    "metadataCacheDuration": SecuritySetting(None, _TIME),
    # SAML logout is not built; these keys are accepted because existing configurations hold them.
    "nameIdEncrypted": SecuritySetting(False, _FLAG),
    "logoutRequestSigned": SecuritySetting(False, _FLAG),
    "logoutResponseSigned": SecuritySetting(False, _FLAG),
}
"""The keys of the python3-saml section ``security``, with our defaults.

``authnRequestsSigned`` is true by default where there is a private key to sign with.
"""


def security_of(options: Options) -> dict[str, Any]:
    """The section ``security``: what is set, over our defaults. Call it with options that have no faults."""
    settled = {name: setting.default for name, setting in SECURITY.items()}
    settled["authnRequestsSigned"] = options.saml_sp_private_key is not None
    settled.update(_json_object(options.saml_security) or {})
    return settled


def saml_faults(options: Options, *, chosen: bool) -> Iterator[OptionFault]:
    """Everything that is wrong with the SAML options; ``chosen`` says that users are to sign in by SAML."""
    yield from _security_faults(options)
    if not chosen or options.saml_idp_server_url is None:
        return
    for name in _NEEDED:
        if getattr(options, name) is None:
            yield OptionFault((name, "saml_idp_server_url"), f"saml_idp_server_url is set, and {name} is not")
    both = ("saml_sp_private_key", "saml_sp_x509_cert")
    if (options.saml_sp_private_key is None) != (options.saml_sp_x509_cert is None):
        absent = next(name for name in both if getattr(options, name) is None)
        yield OptionFault(both, f"{both[0]} and {both[1]} go together, and {absent} is not set")
    for name in KEPT:
        text = getattr(options, name)
        if text is not None and not is_path(text) and not blocks(text):
            # The value is not shown: it may be the private key.
            sentence = f"{name} must be in PEM, its base64 without the lines around it, or a path from /"
            yield OptionFault((name,), sentence)


def _security_faults(options: Options) -> Iterator[OptionFault]:
    about = ("saml_security",)
    if options.saml_security is None:
        return
    given = _json_object(options.saml_security)
    if given is None:
        yield OptionFault(about, "saml_security must be a JSON object")
        return
    for name, value in given.items():
        if name not in SECURITY:
            taken = ", ".join(sorted(SECURITY))
            yield OptionFault(about, f"saml_security has no key {quote(name)}: it takes {taken}")
        elif (fault := SECURITY[name].fault(value)) is not None:
            yield OptionFault(about, f"saml_security: {name} {fault}")
    if options.saml_sp_private_key is None:
        for name in ("authnRequestsSigned", "signMetadata", "wantAssertionsEncrypted"):
            if given.get(name) is True:
                sentence = f"saml_security: {name} needs saml_sp_private_key"
                yield OptionFault((*about, "saml_sp_private_key"), sentence)


def is_path(text: str) -> bool:
    """Whether an option names a file that holds its certificate or key. Neither PEM nor its base64 begins with /."""
    return text.startswith("/")


def blocks(text: str) -> list[tuple[str, bytes]]:
    """The blocks of a PEM text as (label, DER bytes); bare base64 is one block with an empty label.

    Empty where there is none. A line break may be written as ``\\n``, since some places allow only one line.
    """
    plain = text.replace("\\r", "").replace("\\n", "\n")
    found = [(label, _decoded(body)) for label, body in _BLOCK.findall(plain)]
    if not found and "-----" not in plain:
        found = [("", _decoded(plain))]
    return [(label, content) for label, content in found if content is not None]


def _decoded(body: str) -> bytes | None:
    try:
        content = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if content[:1] == b"\x30" else None  # DER of all of these is a sequence


def _json_object(text: str | None) -> dict[str, Any] | None:
    try:
        read = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _is_of_kind(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind in (_FLAG, _CONTEXTS)
    if kind == _CONTEXTS:
        return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one for one in value)
    return kind != _FLAG and (isinstance(value, str) or (kind == _TIME and value is None))

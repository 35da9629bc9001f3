"""The settings of both sides of a SAML sign-on, read from the options and checked once at start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from gpustack.config.options import Options
from gpustack.config.saml import KEPT, blocks, is_path, security_of
from gpustack.errors import Invalid
from gpustack.text import said_by

_REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
_POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"


_LARGEST_FILE = 64 << 10


@attrs.frozen(kw_only=True)
class SamlSettings:
    """This server (``sp_…``), the identity provider (``idp_…``), and what is required of its answers."""

    idp_url: str
    idp_entity_id: str
    idp_certificates: tuple[str, ...]
    """In PEM; several while a provider changes its key."""
    sp_entity_id: str
    acs_url: str
    sp_certificate: str | None = None
    sp_key: str | None = attrs.field(default=None, repr=False)
    attribute_prefix: str = ""
    security: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, options: Options) -> SamlSettings:
        """Read certificates and key from valid options. Raises ``Invalid`` naming the option that is wrong."""
        idp, certificate, private = (_text(name, getattr(options, name)) for name in KEPT)
        key = None if options.saml_sp_private_key is None else _key(private)
        own = () if key is None else _certificates("saml_sp_x509_cert", certificate)
        if key is not None and _public(own[0].public_key()) != _public(key.public_key()):
            raise Invalid("saml_sp_private_key does not belong to the certificate in saml_sp_x509_cert")
        return cls(
            idp_url=options.saml_idp_server_url or "",
            idp_entity_id=options.saml_idp_entity_id or "",
            idp_certificates=tuple(map(_pem, _certificates("saml_idp_x509_cert", idp))),
            sp_entity_id=options.saml_sp_entity_id or "",
            acs_url=options.saml_sp_acs_url or "",
            sp_certificate=_pem(own[0]) if own else None,
            sp_key=None if key is None else _private(key),
            attribute_prefix=options.saml_sp_attribute_prefix or "",
            security=security_of(options),
        )

    def as_dict(self, *, escaped: bool = False) -> dict[str, Any]:
        """In the toolkit's form. It does not escape addresses in the XML that it writes: ``escaped`` for that."""
        text = (lambda one: escape(one, {'"': "&quot;"})) if escaped else str
        return {
            "strict": True,
            "sp": {
                "entityId": text(self.sp_entity_id),
                "assertionConsumerService": {"url": text(self.acs_url), "binding": _POST},
                "x509cert": self.sp_certificate or "",
                "privateKey": self.sp_key or "",
            },
            "idp": {
                "entityId": text(self.idp_entity_id),
                "singleSignOnService": {"url": text(self.idp_url), "binding": _REDIRECT},
                "x509cert": self.idp_certificates[0],
                "x509certMulti": {"signing": list(self.idp_certificates)},
            },
            "security": {name: value for name, value in self.security.items() if name != "strict"},
        }


def _text(name: str, given: str | None) -> str:
    """The value of an option, or the content of the file that it names."""
    if given is None or not is_path(given):
        return given or ""
    try:
        with Path(given).open("rb") as file:
            return file.read(_LARGEST_FILE).decode("ascii")
    except (OSError, ValueError) as error:
        raise Invalid(f"{name} names {given}, which cannot be read: {said_by(error)}") from error


def _certificates(name: str, text: str) -> tuple[x509.Certificate, ...]:
    try:
        found = tuple(
            x509.load_der_x509_certificate(content)
            for label, content in blocks(text)
            if label in ("", "CERTIFICATE", "X509 CERTIFICATE")
        )
    except ValueError as error:
        raise Invalid(f"{name} is no X.509 certificate: {said_by(error)}") from error
    if not found:
        raise Invalid(f"{name} holds no X.509 certificate")
    return found


def _key(text: str) -> RSAPrivateKey:
    found = blocks(text)
    if not found:
        raise Invalid("saml_sp_private_key is no private key in PEM")
    label, content = found[0]
    if label == "ENCRYPTED PRIVATE KEY":
        raise Invalid("saml_sp_private_key is protected by a password: give it without one")
    try:
        key = load_der_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise Invalid("saml_sp_private_key is no private key in PEM") from error
    if not isinstance(key, RSAPrivateKey):
        raise Invalid("saml_sp_private_key must be an RSA key: other kinds cannot sign requests here")
    return key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _private(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _public(key: Any) -> bytes:
    made: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return made

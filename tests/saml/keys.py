"""RSA keys and their certificates, made once a run: SAML toolkits sign with nothing else."""

from __future__ import annotations

import datetime
from functools import cache

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID


@attrs.frozen
class Pair:
    """A private key and its certificate, both in PEM."""

    key: str
    certificate: str

    @property
    def bare(self) -> str:
        """The certificate in one line of base64, as metadata has it."""
        return "".join(line for line in self.certificate.splitlines() if "-----" not in line)


@cache
def pair(name: str) -> Pair:
    """The pair of that name, the same throughout the run."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Pair(
        key.private_bytes(pem, pkcs8, serialization.NoEncryption()).decode(),
        certificate.public_bytes(pem).decode(),
    )

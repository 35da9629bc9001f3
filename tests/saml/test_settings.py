"""Certificates and keys of the options are read at start, in the ways in which people have them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gpustack.errors import Invalid
from gpustack.identity.saml.settings import SamlSettings
from tests.certificates import make_certificate
from tests.needs import requires
from tests.saml.keys import pair
from tests.saml.mint import options


def bare(pem: str) -> str:
    return "".join(line for line in pem.splitlines() if "-----" not in line)


@pytest.mark.parametrize(
    "written", [str, bare, lambda pem: pem.replace("\n", r"\n"), lambda pem: pem.replace("\n", " ")]
)
def test_certificates_and_keys_are_taken_however_they_are_written(written: object) -> None:
    assert callable(written)
    plain = SamlSettings.of(options())
    made = SamlSettings.of(
        options(
            saml_idp_x509_cert=written(pair("idp").certificate),
            saml_sp_x509_cert=written(pair("sp").certificate),
            saml_sp_private_key=written(pair("sp").key),
        )
    )
    assert made == plain
    assert "PRIVATE" not in repr(made)


def test_the_older_form_of_a_key_is_taken_too() -> None:
    openssl = requires("openssl")
    command = [openssl, "pkey", "-traditional"]
    old = subprocess.run(command, input=pair("sp").key, capture_output=True, text=True, check=True).stdout
    assert "BEGIN RSA PRIVATE KEY" in old
    for text in (old, bare(old)):
        assert SamlSettings.of(options(saml_sp_private_key=text)).sp_key == pair("sp").key


def test_several_certificates_of_the_provider_are_kept() -> None:
    both = pair("idp").certificate + pair("new idp").certificate
    assert SamlSettings.of(options(saml_idp_x509_cert=both)).idp_certificates == (
        pair("idp").certificate,
        pair("new idp").certificate,
    )


def test_what_is_no_good_is_named_and_a_key_is_never_shown(tmp_path: Path) -> None:
    certificate, key = (path.read_text() for path in make_certificate(tmp_path, "elliptic"))
    locked = subprocess.run(
        [requires("openssl"), "pkcs8", "-topk8", "-passout", "pass:hunter2"],
        input=pair("sp").key,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for changes, told in (
        ({"saml_idp_x509_cert": "MAAA"}, "saml_idp_x509_cert is no X.509 certificate"),
        ({"saml_idp_x509_cert": pair("sp").key}, "saml_idp_x509_cert holds no X.509 certificate"),
        ({"saml_sp_private_key": pair("idp").key}, "does not belong to the certificate"),
        ({"saml_sp_private_key": "MAAA"}, "saml_sp_private_key is no private key"),
        ({"saml_sp_private_key": locked}, "protected by a password"),
        ({"saml_sp_private_key": key, "saml_sp_x509_cert": certificate}, "must be an RSA key"),
    ):
        with pytest.raises(Invalid, match=told) as raised:
            SamlSettings.of(options(**changes))
        assert not any(text in str(raised.value) for text in (bare(key), bare(pair("sp").key)[:40]))


def test_certificates_and_keys_are_read_from_the_files_that_are_named(tmp_path: Path) -> None:
    paths = {}
    for name, text in (
        ("saml_idp_x509_cert", pair("idp").certificate),
        ("saml_sp_x509_cert", pair("sp").certificate),
        ("saml_sp_private_key", pair("sp").key),
    ):
        paths[name] = str(tmp_path / name)
        Path(paths[name]).write_text(text)
    assert SamlSettings.of(options(**paths)) == SamlSettings.of(options())
    for name, content in (("saml_sp_private_key", b""), ("saml_idp_x509_cert", b"\xff" * 100_000)):
        Path(paths[name]).write_bytes(content)
        with pytest.raises(Invalid, match=name):
            SamlSettings.of(options(**paths))
    with pytest.raises(Invalid, match="saml_sp_x509_cert names /nowhere, which cannot be read"):
        SamlSettings.of(options(saml_sp_x509_cert="/nowhere"))

"""SimpleSAMLphp as an identity provider on loopback, by PHP's own little server: alice and eve, password ``pw``."""

from __future__ import annotations

import html
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import httpx

from tests.daemon import WITHIN
from tests.needs import missing, requires
from tests.saml.keys import Pair, pair

WWW = Path("/usr/share/simplesamlphp/www")
ENTITY = "urn:tests:simplesamlphp"
PEOPLE = {
    name: {
        "uid": [name],
        "email": [f"{name}@example.com"],
        "displayName": [shown],
        "givenName": [shown.partition(" ")[0]],
        "sn": [shown.partition(" ")[2]],
        "groups": groups,
        "photo": [f"https://people.example.com/{name}.png"],
        "urn:tests:shown": [shown.upper()],
    }
    for name, shown, groups in (
        ("alice", "Alice Liddell", ["staff", "admins"]),
        ("eve", "Eve Adams", ["staff"]),
        ("admin", "Not The Admin", ["staff"]),
    )
}


@attrs.frozen
class SimpleSaml:
    """A running provider. It knows us by the metadata that ``meet`` is given."""

    url: str
    folder: Path
    pair: Pair

    @property
    def sso_url(self) -> str:
        return f"{self.url}/saml2/idp/SSOService.php"

    def meet(self, metadata: str) -> None:
        """Let it read who the service provider is."""
        (self.folder / "sp.xml").write_text(metadata)


@attrs.frozen(eq=False)
class Person:
    """Somebody with a fresh browser, so to speak."""

    client: httpx.Client

    def signs_in(self, login: str, user: str, password: str = "pw") -> httpx.Response:
        """From ``login`` of ours through the provider's form and back, to where it ends."""
        action, fields = self.gets_answer(login, user, password)
        return self.client.post(action, data=fields)

    def gets_answer(self, login: str, user: str, password: str = "pw") -> tuple[str, dict[str, str]]:
        """The same up to the page of the provider that would post its answer: where to, and the fields."""
        answer = self.client.get(login)
        state = re.search(r'name="AuthState" value="([^"]+)"', answer.text)
        if state is not None:
            address = str(answer.url).partition("?")[0]
            fields = {"username": user, "password": password, "AuthState": html.unescape(state[1])}
            answer = self.client.post(f"{address}?", data=fields)
        return form_of(answer.text)


@contextmanager
def person() -> Iterator[Person]:
    with httpx.Client(headers={"accept": "text/html"}, timeout=WITHIN, follow_redirects=True) as client:
        yield Person(client)


def form_of(page: str) -> tuple[str, dict[str, str]]:
    """Where a page of its posts, and the fields."""
    action = re.search(r'<form[^>]* action="([^"]+)"', page)
    assert action is not None, page[:3000]
    names = ("SAMLResponse", "RelayState")
    found = {name: re.search(rf'name="{name}" value="([^"]*)"', page) for name in names}
    return html.unescape(action[1]), {name: html.unescape(one[1]) for name, one in found.items() if one}


@contextmanager
def running_simplesaml(
    folder: Path, *, encrypts: bool = False, name: str = "127.0.0.1"
) -> Iterator[SimpleSaml]:
    """Start one on a free port, known as ``name``; ended with the block."""
    php = requires("php", apt="php-cli php-xml php-mbstring")
    if not WWW.is_dir():
        missing("SimpleSAMLphp is not installed", "apt-get install --no-install-recommends simplesamlphp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, made = f"http://{name}:{port}", pair("simplesamlphp")
    _write(folder, url, made, encrypts)
    command = [php, "-d", f"session.save_path={folder / 'sessions'}", "-d", "error_reporting=0"]
    command += ["-S", f"127.0.0.1:{port}", "-t", str(WWW)]
    # Without PHP_CLI_SERVER_WORKERS: its children would outlive it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PHP_")}
    with (folder / "php.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**env, "SIMPLESAMLPHP_CONFIG_DIR": str(folder)}, stdout=log, stderr=log
        )
    try:
        _wait(process, f"{url}/saml2/idp/metadata.php", folder / "php.log")
        yield SimpleSaml(url, folder, made)
    finally:
        process.terminate()
        process.wait(WITHIN)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + WITHIN
    while True:
        try:
            with urllib.request.urlopen(url, timeout=WITHIN):
                return
        except (urllib.error.URLError, ConnectionError) as error:
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(
                    f"SimpleSAMLphp does not answer: {error}\n{log.read_text()[-3000:]}"
                ) from error
            time.sleep(0.02)


def _write(folder: Path, url: str, made: Pair, encrypts: bool) -> None:
    for name in ("cert", "log", "tmp", "sessions", "metadata"):
        (folder / name).mkdir(parents=True)
    (folder / "cert" / "idp.crt").write_text(made.certificate)
    (folder / "cert" / "idp.pem").write_text(made.key)
    (folder / "sp.xml").write_text("")
    _php(
        folder / "config.php",
        {
            "baseurlpath": f"{url}/",
            "certdir": f"{folder}/cert/",
            "loggingdir": f"{folder}/log/",
            "tempdir": f"{folder}/tmp",
            "metadatadir": f"{folder}/metadata",
            "secretsalt": "a-salt-of-the-tests-alone-0123456789",
            "auth.adminpassword": "not-used-by-any-test",
            "technicalcontact_name": "tests",
            "technicalcontact_email": "tests@example.com",
            "timezone": "UTC",
            "logging.handler": "errorlog",
            "logging.level": 5,
            "enable.saml20-idp": True,
            "module.enable": {"exampleauth": True, "core": True, "saml": True},
            "store.type": "phpsession",
            "session.cookie.secure": False,
            "session.cookie.samesite": None,
            "session.phpsession.savepath": f"{folder}/sessions",
            "session.phpsession.cookiename": "SSP",
            "session.phpsession.httponly": True,
            "metadata.sources": [{"type": "flatfile"}, {"type": "xml", "file": f"{folder}/sp.xml"}],
            "language.default": "en",
            "language.available": ["en"],
            "production": False,
            "showerrors": True,
            "authproc.idp": {},
            "authproc.sp": {},
        },
    )
    people = {f"{name}:pw": attributes for name, attributes in PEOPLE.items()}
    _php(folder / "authsources.php", {"people": {"0": "exampleauth:UserPass", **people}})
    hosted = {
        "host": "__DEFAULT__",
        "privatekey": "idp.pem",
        "certificate": "idp.crt",
        "auth": "people",
        "signature.algorithm": "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
        "saml20.sign.response": True,
        "saml20.sign.assertion": True,
        "assertion.encryption": encrypts,
        "redirect.validate": True,
        "simplesaml.nameidattribute": "uid",
    }
    text = f"<?php\n$metadata[{json.dumps(ENTITY)}] = {_literal(hosted)};\n"
    (folder / "metadata" / "saml20-idp-hosted.php").write_text(text)


def _php(path: Path, config: dict[str, object]) -> None:
    path.write_text(f"<?php\n$config = {_literal(config)};\n")


def _literal(value: object) -> str:
    """A value as PHP writes it."""
    if isinstance(value, dict):
        return "[" + ", ".join(f"{_literal(key)} => {_literal(one)}" for key, one in value.items()) + "]"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

"""Signing in by SAML on a running daemon: at SimpleSAMLphp with a real browser, recorded, and at pysaml2."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

import attrs
import httpx
import pytest

from tests.browser import Visitor
from tests.daemon import WITHIN, Daemon, daemon
from tests.databases import Server
from tests.ports import free_port
from tests.provider import ALONE
from tests.saml import pysaml2
from tests.saml.keys import pair
from tests.saml.pysaml2 import Pysaml2
from tests.saml.simplesaml import ENTITY, SimpleSaml, person, running_simplesaml


@attrs.frozen
class Site:
    """A server, and the provider that its people sign in at."""

    daemon: Daemon
    provider: SimpleSaml


def flags(
    port: int, sso: str, entity: str, certificate: str, *, listens: int | None = None
) -> tuple[str, ...]:
    """``port`` is that of the callback; a server behind a balancer ``listens`` elsewhere."""
    return (
        *(*ALONE, "--port", str(port if listens is None else listens)),
        *("--saml-idp-server-url", sso, "--saml-idp-entity-id", entity, "--saml-idp-x509-cert", certificate),
        *("--saml-sp-entity-id", "urn:tests:gpustack", "--saml-sp-x509-cert", pair("sp").certificate),
        *("--saml-sp-acs-url", f"http://127.0.0.1:{port}/auth/saml/callback"),
    )


SECRET = {"GPUSTACK_SAML_SP_PRIVATE_KEY": pair("sp").key}


@contextmanager
def site(folder: Path, *options: str) -> Iterator[Site]:
    """The provider is on another site: browsers send it, and bring back from it, no cookie of ours."""
    port = free_port()
    with running_simplesaml(folder / "idp", name="localhost") as provider:
        given = flags(port, provider.sso_url, ENTITY, provider.pair.certificate)
        with daemon(folder / "data", *given, *options, env=SECRET) as running:
            provider.meet(httpx.get(f"{running.url}/auth/saml/metadata").text)
            yield Site(running, provider)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    named = ("--external-auth-name", "uid", "--external-auth-avatar-url", "photo")
    mapped = ("--external-auth-groups", "groups", "--external-auth-admin-groups", "admins")
    with site(tmp_path, *named, *mapped) as made:
        yield made


def sign_in(visitor: Visitor, name: str) -> None:
    """Fill in the provider's form."""
    visitor.page.locator("input[name=username]").fill(name)
    visitor.page.locator("input[name=password]").fill("pw")
    visitor.picture("provider-login")
    visitor.page.locator("input[name=password]").press("Enter")


def test_a_person_signs_in_at_the_provider_and_out_again(
    here: Site, visitors: Callable[[str], Visitor]
) -> None:
    alice = visitors("alice")
    alice.page.goto(f"{here.daemon.url}/sign-in")
    alice.page.get_by_role("link", name="Sign in by SAML").wait_for()
    alice.picture("start")
    alice.page.get_by_role("link", name="Sign in by SAML").click()
    alice.page.wait_for_url(re.compile(re.escape(here.provider.url)))
    sign_in(alice, "alice")
    alice.page.wait_for_url(here.daemon.url + "/")
    alice.page.get_by_role("button", name="Your account").get_by_text("alice").wait_for()
    alice.picture("signed-in")
    cookies = alice.cookies()
    assert [name for name in cookies if name.startswith("gpustack_")] == ["gpustack_session"]
    assert (cookies["gpustack_session"]["httpOnly"], cookies["gpustack_session"]["sameSite"]) == (True, "Lax")
    me = alice.page.request.get(here.daemon.url + "/v1/users/me").json()
    shown = (me["username"], me["full_name"], me["avatar_url"], me["source"])
    assert shown == ("alice", "Alice Liddell", "https://people.example.com/alice.png", "SAML")

    alice.sign_out()
    alice.page.get_by_role("link", name="Sign in by SAML").wait_for()
    alice.picture("signed-out")
    assert "gpustack_session" not in alice.cookies()
    assert (alice.folder / "01-start.png").stat().st_size > 0


def test_a_name_that_is_taken_is_explained_to_who_has_it_there(
    here: Site, visitors: Callable[[str], Visitor]
) -> None:
    """Whoever is called admin at the provider is not the administrator here."""
    other = visitors("other")
    other.page.goto(f"{here.daemon.url}/auth/saml/login")
    sign_in(other, "admin")
    other.page.get_by_text("The name 'admin' belongs to another account").wait_for()
    other.picture("refused")
    assert other.page.get_by_role("link", name="Sign in again").is_visible()
    assert "gpustack_session" not in other.cookies()


@pytest.mark.attack("saml")
def test_a_page_does_not_log_its_visitor_in_as_somebody_else(
    here: Site, visitors: Callable[[str], Visitor]
) -> None:
    """A real answer, of somebody's own login, posted by a page of theirs in the victim's browser."""
    victim = visitors("victim")
    victim.page.goto(f"{here.daemon.url}/auth/saml/login")  # a login of one's own is under way, too
    with person() as eve:
        action, fields = eve.gets_answer(f"{here.daemon.url}/auth/saml/login", "eve")
    inputs = "".join(f'<input name="{name}" value="{escape(value)}">' for name, value in fields.items())
    victim.page.evaluate(
        "form => { document.documentElement.innerHTML = form; document.forms[0].submit() }",
        f'<body><form method="post" action="{escape(action)}">{inputs}</form></body>',
    )
    victim.page.get_by_text("began in another browser").wait_for()
    victim.picture("refused")
    assert "gpustack_session" not in victim.cookies()


def test_another_toolkit_and_a_restart_agree(tmp_path: Path) -> None:
    """pysaml2 reads our metadata and checks our signature; what it answered is good once, also after a restart."""
    port = free_port()
    given = flags(port, pysaml2.SSO, pysaml2.ENTITY, pair("pysaml2").certificate)
    with httpx.Client(headers={"accept": "text/html"}, timeout=WITHIN) as browser:
        with daemon(tmp_path / "data", *given, env=SECRET) as running:
            metadata = browser.get(f"{running.url}/auth/saml/metadata").text
            away = browser.get(f"{running.url}/auth/saml/login?next=/readyz").headers["location"]
            provider = Pysaml2.meeting(tmp_path / "idp", metadata)
            fields = provider.answer(away, "bob", {"displayName": ["Bob"]})
            came = browser.post(f"{running.url}/auth/saml/callback", data=fields, follow_redirects=True)
            assert came.url.path == "/readyz", came.text
            running.stop()
        with daemon(tmp_path / "data", *given, env=SECRET) as running:
            me = browser.get(f"{running.url}/v1/users/me").json()
            assert (me["username"], me["full_name"]) == ("bob", "Bob")
            again = browser.post(f"{running.url}/auth/saml/callback", data=fields)
            assert (again.status_code, "not under way any more" in again.text) == (400, True)


@pytest.mark.attack("saml")
def test_on_two_servers_a_login_goes_on_at_either_and_an_answer_is_good_once(
    tmp_path: Path, servers: Callable[[str], Server]
) -> None:
    """Behind a balancer every step may come to another server, and each at once."""
    server = servers("postgresql")
    given = flags(free_port(), pysaml2.SSO, pysaml2.ENTITY, pair("pysaml2").certificate, listens=0)
    env = {**SECRET, "GPUSTACK_DATABASE_URL": (url := server.create())}
    with (
        daemon(tmp_path / "one", *given, env=env) as one,
        daemon(tmp_path / "two", *given, env=env) as two,
        httpx.Client(headers={"accept": "text/html"}, timeout=WITHIN) as browser,
    ):
        metadata = browser.get(f"{one.url}/auth/saml/metadata").text
        provider = Pysaml2.meeting(tmp_path / "idp", metadata)
        away = browser.get(f"{one.url}/auth/saml/login").headers["location"]
        fields = provider.answer(away, "bob", {})
        brought = browser.post(f"{two.url}/auth/saml/callback", data=fields)
        assert brought.status_code == 303, brought.text
        came = browser.get(f"{one.url}{brought.headers['location']}")
        me = browser.get(f"{two.url}/v1/users/me").json()
        assert (came.status_code, came.headers.get("location")) == (303, "/"), came.text
        assert (me["username"], me["is_admin"]) == ("bob", False)
        for each in (one, two):
            again = browser.post(f"{each.url}/auth/saml/callback", data=fields)
            assert (again.status_code, "not under way any more" in again.text) == (400, True)
    server.drop(url)


@pytest.mark.parametrize(
    ("certificate", "module", "told"),
    [
        (pair("idp").certificate, "xmlsec", "needs packages that are not installed (xmlsec): pip install"),
        ("MAAA", "", "saml_idp_x509_cert is no X.509 certificate"),
    ],
)
def test_what_is_missing_for_it_is_one_sentence_at_start(
    tmp_path: Path, certificate: str, module: str, told: str
) -> None:
    env = dict(SECRET)
    if module:
        (tmp_path / "modules").mkdir()
        text = f"raise ModuleNotFoundError('No module named {module}', name={module!r})"
        (tmp_path / "modules" / f"{module}.py").write_text(text)
        env["PYTHONPATH"] = str(tmp_path / "modules")
    given = flags(free_port(), "https://idp.example.com/sso", ENTITY, certificate)
    with daemon(tmp_path / "data", *given, env=env, wait=False) as running:
        assert running.process.wait(WITHIN) == 1
    (line,) = [line for line in running.log.splitlines() if line.startswith("gpustack: ")]
    assert told in line
    assert not re.search("Traceback|PRIVATE", running.log)

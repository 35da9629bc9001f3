"""Signing in at a real, certified provider: with a real browser, recorded, and with clients of every kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import attrs
import pytest

from tests.browser import Visitor
from tests.daemon import Daemon, daemon
from tests.databases import Server
from tests.ports import free_port
from tests.provider import ALONE, CLIENT_ID, CLIENT_SECRET, Provider, running_provider
from tests.provider.person import Person, person

BY_NAME = ("--external-auth-name", "preferred_username")
MAPPED = ("--external-auth-groups", "groups", "--external-auth-admin-groups", "gpu-admins")
SECRET = {"GPUSTACK_OIDC_CLIENT_SECRET": CLIENT_SECRET}
attack = pytest.mark.attack("oidc")


@attrs.frozen
class Site:
    """A server, and the provider that its people sign in at."""

    daemon: Daemon
    provider: Provider

    def me(self, someone: Person) -> Any:
        """What the server says to the browser of who has signed in."""
        return someone.client.get(f"{self.daemon.url}/v1/users/me").json()

    def login(self, someone: Person) -> str:
        """The page on which somebody ends who wants to sign in."""
        return someone.go(f"{self.daemon.url}/auth/oidc/login").text

    def name_after_login(self, someone: Person) -> str:
        """The name of the account of somebody who has gone to sign in."""
        self.login(someone)
        return str(self.me(someone).get("username"))


def configured(issuer: str, port: int) -> tuple[str, ...]:
    back = f"http://127.0.0.1:{port}/auth/oidc/callback"
    told = ("--oidc-issuer", issuer, "--oidc-client-id", CLIENT_ID, "--oidc-redirect-uri", back)
    return (*ALONE, *told)


def back_to(port: int) -> list[str]:
    return [f"http://127.0.0.1:{port}/auth/oidc/callback"]


@contextmanager
def site(folder: Path, *options: str, env: dict[str, str] = SECRET, **provider: Any) -> Iterator[Site]:
    port, folder = free_port(), folder / "site"
    folder.mkdir()
    with (
        running_provider(free_port(), folder, back_to(port), **provider) as real,
        daemon(
            folder / "data", *configured(real.issuer, port), "--port", str(port), *options, env=env
        ) as running,
    ):
        yield Site(running, real)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("oidc"), *BY_NAME, *MAPPED) as made:
        yield made


# --- in a browser


def sign_in(visitor: Visitor, here: Site, name: str) -> None:
    """Fill in the provider's own forms, from where it shows the first, until we are back here."""
    page = visitor.page
    page.get_by_placeholder("Enter any login").fill(name)
    page.get_by_placeholder("and password").fill("anything")
    visitor.picture("provider-login")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").wait_for()
    visitor.picture("provider-consent")
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(re.compile(re.escape(here.daemon.url)))


def test_a_person_signs_in_at_the_provider_and_out_again(
    here: Site, visitors: Callable[[str], Visitor]
) -> None:
    ada = visitors("ada")
    ada.page.goto(f"{here.daemon.url}/sign-in")
    ada.page.get_by_role("link", name="Sign in by OIDC").wait_for()
    ada.picture("start")
    ada.page.get_by_role("link", name="Sign in by OIDC").click()
    ada.page.wait_for_url(re.compile(re.escape(here.provider.issuer)))
    sign_in(ada, here, "ada")
    assert ada.page.url == here.daemon.url + "/"
    ada.page.get_by_role("button", name="Your account").get_by_text("ada").wait_for()
    ada.picture("signed-in")
    cookies = ada.cookies()
    assert [name for name in cookies if name.startswith("gpustack_")] == ["gpustack_session"]
    assert cookies["gpustack_session"]["httpOnly"]
    assert cookies["gpustack_session"]["sameSite"] == "Lax"
    me = ada.page.request.get(here.daemon.url + "/v1/users/me").json()
    shown = (me["username"], me["full_name"], me["avatar_url"], me["is_admin"], me["source"])
    assert shown == ("ada", "Ada Lovelace", "https://example.com/ada.png", True, "OIDC")

    ada.sign_out()
    ada.page.wait_for_url(re.compile(re.escape(here.provider.issuer)))
    ada.picture("provider-logout")
    ada.page.get_by_role("button", name="Yes, sign me out").click()
    ada.page.wait_for_url(here.daemon.url + "/")
    assert "gpustack_session" not in ada.cookies()
    ada.page.goto(f"{here.daemon.url}/sign-in")
    ada.page.get_by_role("link", name="Sign in by OIDC").wait_for()
    ada.picture("signed-out")
    # The provider has forgotten her too: who wants to sign in now is asked for a name again.
    ada.page.get_by_role("link", name="Sign in by OIDC").click()
    ada.page.get_by_placeholder("Enter any login").wait_for()
    assert len(list(ada.folder.glob("*.png"))) == 6


def test_who_changes_their_mind_at_the_provider_is_told_so_and_can_try_again(
    here: Site, visitors: Callable[[str], Visitor]
) -> None:
    bob = visitors("bob")
    bob.page.goto(f"{here.daemon.url}/auth/oidc/login")
    bob.page.get_by_role("link", name="Cancel").click()
    bob.page.wait_for_url(re.compile(re.escape(here.daemon.url)))
    bob.picture("cancelled")
    assert "Sign-in failed" in bob.text
    assert "access_denied: End-User aborted interaction" in bob.text
    bob.page.get_by_role("link", name="Sign in again").click()
    sign_in(bob, here, "bob")
    bob.page.get_by_role("button", name="Your account").get_by_text("bob").wait_for()
    assert not bob.page.get_by_role("link", name="Cluster").count()


@attack
def test_a_link_of_an_attackers_sign_in_logs_no_visitor_in(
    here: Site, visitors: Callable[[str], Visitor]
) -> None:
    """Else the victim would work, and give away what they type, in the attacker's account."""
    with person("mallory") as mallory:
        link = mallory.back(f"{here.daemon.url}/auth/oidc/login")
    victim = visitors("victim")
    victim.page.goto(link)
    victim.picture("refused")
    assert "began in another browser" in victim.text
    assert "gpustack_session" not in victim.cookies()


# --- without one


@attack
def test_a_callback_is_good_once(here: Site) -> None:
    with person("carol") as carol:
        link = carol.back(f"{here.daemon.url}/auth/oidc/login")
        assert carol.client.get(link).status_code == 303
        assert here.me(carol)["username"] == "carol"
        assert carol.client.get(link).status_code == 400


@attack
def test_a_code_of_another_sign_in_is_refused_by_its_verifier(here: Site) -> None:
    with person("carol") as carol, person("mallory") as mallory:
        stolen = parse_qs(urlsplit(carol.back(f"{here.daemon.url}/auth/oidc/login")).query)["code"][0]
        own = urlsplit(mallory.back(f"{here.daemon.url}/auth/oidc/login"))
        fields = {name: values[0] for name, values in parse_qs(own.query).items()}
        answer = mallory.client.get(own._replace(query=urlencode({**fields, "code": stolen})).geturl())
        assert answer.status_code == 403
        assert "invalid_grant" in answer.text


@attack
def test_somebody_called_admin_at_the_provider_is_not_the_administrator_here(here: Site) -> None:
    with person("impostor") as impostor:
        assert "belongs to another account" in here.login(impostor)
        assert here.me(impostor)["code"] == 401


def test_a_rotated_key_is_learnt(here: Site) -> None:
    """Keys that nobody knew are asked for once in ten seconds, and by now the last time is longer ago or comes."""
    with person("dave") as dave:
        here.login(dave)
        assert here.provider.rotate() == "key-2"

        def signed_in() -> bool:
            with person("erin") as erin:
                here.login(erin)
                return "username" in here.me(erin)

        here.daemon.until(signed_in, "a sign-in by the new key")


def test_a_client_may_be_public_or_send_its_secret_in_the_body(tmp_path: Path) -> None:
    """A public client has no secret: PKCE alone proves who began."""
    for method, env in (("none", {}), ("client_secret_post", SECRET)):
        folder = tmp_path / method
        folder.mkdir()
        client: dict[str, Any] = {"token_endpoint_auth_method": method}
        if method == "none":
            client["client_secret"] = None
        # The document of the provider offers all ways; the first that we know must not be taken as the only one.
        with site(folder, env=env, client=client, conform=False) as made, person("ada") as ada:
            assert made.name_after_login(ada) == "ada@example.com"


def test_a_sign_in_may_end_at_another_server_than_it_began_at(
    tmp_path: Path, servers: Callable[[str], Server]
) -> None:
    """As behind a balancer, and at once: the other server has not heard of it by itself."""
    port, database = free_port(), servers("postgresql")
    url = database.create()
    with running_provider(free_port(), tmp_path, back_to(port)) as real, ExitStack() as stack:
        stack.callback(database.drop, url)
        ports = (port, free_port())
        first, second = (
            stack.enter_context(
                daemon(
                    tmp_path / str(own),
                    *configured(real.issuer, port),
                    *("--port", str(own)),
                    env={**SECRET, "GPUSTACK_DATABASE_URL": url},
                )
            )
            for own in ports
        )
        ada = stack.enter_context(person("ada"))
        ada.back(f"{first.url}/auth/oidc/login")  # from now on the provider asks her nothing
        link = ada.back(f"{first.url}/auth/oidc/login").replace(str(ports[0]), str(ports[1]))
        assert ada.go(link).status_code == 200
        assert Site(first, real).me(ada)["username"] == "ada@example.com"
        assert Site(second, real).me(ada)["username"] == "ada@example.com"


def test_a_provider_that_comes_later_than_the_server_is_found(tmp_path: Path) -> None:
    """The server is ready meanwhile, and says to who wants to sign in what is wrong."""
    port, provider_port = free_port(), free_port()
    issuer = f"http://127.0.0.1:{provider_port}"
    with (
        daemon(tmp_path / "data", *configured(issuer, port), "--port", str(port), env=SECRET) as running,
        person("ada") as ada,
    ):
        assert running.call("GET", "/readyz")[0] == 200
        answer = ada.client.get(f"{running.url}/auth/oidc/login")
        assert answer.status_code == 503
        assert "cannot be reached (Connection refused)" in answer.text
        with running_provider(provider_port, tmp_path, back_to(port)) as real:
            made = Site(running, real)
            running.until(lambda: made.name_after_login(ada) == "ada@example.com", "the provider")

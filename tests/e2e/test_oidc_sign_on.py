"""Signing in at a real, certified provider with a real browser, and out again; recorded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.browser import Visitor
from tests.daemon import Daemon, daemon
from tests.options.world import free_port
from tests.provider import ALONE, CLIENT_ID, CLIENT_SECRET, Provider, running_provider


@attrs.frozen
class Site:
    """A server, and the provider that its people sign in at."""

    daemon: Daemon
    provider: Provider


@contextmanager
def site(folder: Path, *options: str, **provider: Any) -> Iterator[Site]:
    port = free_port()
    back = f"http://127.0.0.1:{port}/auth/oidc/callback"
    with (
        running_provider(free_port(), folder, [back], **provider) as real,
        daemon(
            folder / "data",
            *(*ALONE, "--port", str(port)),
            *("--oidc-issuer", real.issuer, "--oidc-client-id", CLIENT_ID, "--oidc-redirect-uri", back),
            *options,
            env={"GPUSTACK_OIDC_CLIENT_SECRET": CLIENT_SECRET},
        ) as running,
    ):
        yield Site(running, real)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    mapped = ("--external-auth-groups", "groups", "--external-auth-admin-groups", "gpu-admins")
    with site(tmp_path, "--external-auth-name", "preferred_username", *mapped) as made:
        yield made


def sign_in(visitor: Visitor, here: Site, name: str) -> None:
    """Fill in the provider's own forms, from wherever it shows the first."""
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
    ada.page.goto(here.daemon.url)
    assert "You are not signed in" in ada.text
    ada.picture("start")
    ada.page.get_by_role("link", name="Sign in by OIDC").click()
    assert ada.page.url.startswith(here.provider.issuer)
    sign_in(ada, here, "ada")
    assert ada.page.url == here.daemon.url + "/"
    assert "You are signed in as ada, an administrator." in ada.text
    ada.picture("signed-in")
    cookies = ada.cookies()
    assert [name for name in cookies if name.startswith("gpustack_")] == ["gpustack_session"]
    assert cookies["gpustack_session"]["httpOnly"]
    assert cookies["gpustack_session"]["sameSite"] == "Lax"
    me = ada.page.request.get(here.daemon.url + "/v1/users/me").json()
    shown = (me["username"], me["full_name"], me["avatar_url"], me["is_admin"], me["source"])
    assert shown == ("ada", "Ada Lovelace", "https://example.com/ada.png", True, "OIDC")

    ada.page.get_by_role("button", name="Sign out").click()
    ada.page.wait_for_url(re.compile(re.escape(here.provider.issuer)))
    ada.picture("provider-logout")
    ada.page.get_by_role("button", name="Yes, sign me out").click()
    ada.page.wait_for_url(here.daemon.url + "/")
    assert "You are not signed in" in ada.text
    ada.picture("signed-out")
    assert "gpustack_session" not in ada.cookies()
    assert (ada.folder / "01-start.png").stat().st_size > 0

"""The web console in a real browser, against a real daemon: signing in, every page, both languages and themes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.browser import Visitor
from tests.console import PASSWORD, grave_violations, requires_axe, requires_console
from tests.daemon import Daemon, daemon

ALONE = (
    "--host",
    "127.0.0.1",
    "--disable-worker",
    "--force-auth-localhost",
    "--bootstrap-password",
    PASSWORD,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    requires_console()
    requires_axe()
    with daemon(tmp_path_factory.mktemp("console") / "data", *ALONE) as running:
        yield running


def test_a_person_signs_in_walks_through_the_pages_and_out_again(
    server: Daemon, visitors: Callable[[str], Visitor]
) -> None:
    ada = visitors("ada")
    page, faults = ada.page, list[str]()
    page.goto(f"{server.url}/cluster")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").get_by_text("Incorrect username or password").wait_for()
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    # Who came for a page is at that page.
    page.get_by_role("heading", name="No worker yet").wait_for()
    page.get_by_role("button", name="Add a worker").click()
    page.get_by_role("dialog").get_by_text("--server-url").first.wait_for()
    assert "Console" not in page.get_by_role("dialog").inner_text()
    page.keyboard.press("Escape")

    links = [link.get_attribute("href") for link in page.get_by_role("navigation").get_by_role("link").all()]
    assert links[0] == "/"
    for path in filter(None, links):
        page.locator(f"nav a[href='{path}']").click()
        page.locator("main h1, main h2").first.wait_for()
        page.reload()
        page.locator("main h1, main h2").first.wait_for()
        ada.picture(path.strip("/") or "home")
        assert grave_violations(page) == [], path

    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.get_by_role("button", name="中文").click()
    page.get_by_role("link", name="集群").click()
    page.get_by_role("heading", name="还没有节点").wait_for()
    page.reload()
    page.get_by_role("heading", name="还没有节点").wait_for()
    assert page.evaluate("[document.documentElement.dataset.theme, document.documentElement.lang]") == [
        "dark",
        "zh-CN",
    ]
    ada.picture("dark-zh")
    page.get_by_role("button", name="English").click()
    page.goto(f"{server.url}/account")
    page.get_by_text("this one").wait_for()
    ada.sign_out()
    page.get_by_role("button", name="Sign in").wait_for()
    assert "gpustack_session" not in ada.cookies()
    assert faults == []


def test_who_is_no_administrator_sees_their_pages_only(
    server: Daemon, visitors: Callable[[str], Visitor]
) -> None:
    bob, name = visitors("bob"), '"bob" é 千'
    admin = bob.page.request
    assert admin.post(f"{server.url}/auth/login", data={"username": "admin", "password": PASSWORD}).ok
    made = admin.post(
        f"{server.url}/v1/users",
        data={"username": name, "password": PASSWORD, "require_password_change": True},
    )
    assert made.ok, made.text()
    admin.post(f"{server.url}/auth/logout", data={})
    page = bob.page
    page.goto(f"{server.url}/cluster")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Choose a password").wait_for()
    page.get_by_label("Present password").fill(PASSWORD)
    page.get_by_label("New password", exact=True).fill("Another-2y!")
    page.get_by_label("The new password again").fill("Another-2y!")
    page.get_by_role("button", name="Change the password").click()
    page.get_by_text("This page is for administrators").wait_for()
    page.get_by_role("link", name="Home").first.click()
    page.get_by_role("heading", name="Models that you may use").wait_for()
    assert page.get_by_role("button", name=f"Your account: {name}").inner_text() == name
    assert not page.get_by_role("link", name="Cluster").count()

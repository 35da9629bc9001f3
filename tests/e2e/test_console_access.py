"""The console's pages of who may what, who uses how much and what happened, with the mouse and with the keyboard."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from tests.browser import Visitor, running_browser
from tests.console import PASSWORD, Complaints, grave_violations, requires_axe, requires_console, sign_in
from tests.daemon import Daemon, daemon
from tests.models import make_tiny_llm

if TYPE_CHECKING:
    from playwright.sync_api import Page

ODD = '"Ada" l\'été 千 <b>'
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4}


@attrs.frozen
class Office:
    """A server that asks everybody who they are, and its administrator at a browser."""

    server: Daemon
    page: Page
    complaints: Complaints
    visit: Callable[[str], Visitor]

    def send(self, method: str, path: str, body: object = None) -> Any:
        answer = self.page.request.fetch(f"{self.server.url}{path}", method=method, data=body)
        assert answer.ok, answer.text()
        return answer.json()

    def go(self, path: str) -> Page:
        self.page.goto(self.server.url + path)
        self.page.locator("main h1").wait_for()
        return self.page


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    requires_console()
    requires_axe()
    folder = tmp_path_factory.mktemp("office")
    given = ("--host", "127.0.0.1", "--force-auth-localhost", "--bootstrap-password", PASSWORD)
    with (
        daemon(folder / "data", *given) as server,
        running_browser(folder / "browser", __name__, traced=False) as visit,
    ):
        page = visit("admin").page
        office = Office(server, page, Complaints.of(page), visit)
        sign_in(page, server)
        model = {
            "name": "tiny",
            "source": "local_path",
            "local_path": str(make_tiny_llm(folder / "tiny.gguf")),
        }
        office.send("POST", "/v1/models", model)
        page.goto(f"{server.url}/models")
        page.get_by_role("row").get_by_text("ready", exact=True).first.wait_for(state="attached")
        yield office
        office.complaints.check()


def called(office: Office, key: str) -> tuple[int, Any]:
    return office.server.call("POST", "/v1/chat/completions", CHAT, {"authorization": f"Bearer {key}"})


def test_a_key_with_limits_is_made_and_what_exceeds_them_is_told(office: Office) -> None:
    page = office.go("/access?tab=keys")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill(ODD)
    dialog.get_by_text("how much may be used").click()
    dialog.get_by_label("Requests per minute").fill("2")
    dialog.get_by_label("Tokens per day").fill("5000")
    dialog.get_by_role("button", name="Make the key").click()
    dialog.get_by_text("It is shown this once").wait_for()
    key = dialog.get_by_label(ODD, exact=True).inner_text()
    dialog.get_by_role("button", name="I have it").click()
    row = page.get_by_role("row").filter(has_text=ODD)
    row.get_by_text("5k of 5k tokens left today").wait_for()

    assert [called(office, key)[0] for _ in range(2)] == [200, 200]
    status, told = called(office, key)
    assert status == 429
    assert "This API key may make 2 requests a minute" in told["error"]["message"]

    # No more than was used already.
    row.get_by_role("button", name=ODD, exact=True).click()
    dialog.get_by_text("left · anew").wait_for()
    dialog.get_by_label("Requests per minute").fill("")
    dialog.get_by_label("Tokens per day").fill("3")
    dialog.get_by_role("button", name="Save").click()
    row.locator(".fault").get_by_text("0 of 3 tokens left today").wait_for()
    status, told = called(office, key)
    assert status == 429
    assert "This API key may use 3 tokens a day" in told["error"]["message"]

    page.get_by_role("link", name="Home").first.click()
    trouble = page.get_by_role("listitem").filter(
        has_text=f"The 3 tokens of API key {ODD} for this day are used up"
    )
    trouble.get_by_role("button", name="Allow 6 a day").click()
    dialog.get_by_role("button", name="Allow 6 a day").click()
    page.get_by_text(f"The 6 tokens of API key {ODD}").wait_for()
    page.get_by_role("listitem").get_by_role("link", name=ODD).click()
    row.get_by_text("0 of 6 tokens left today").wait_for()
    page.get_by_role("button", name=f"Actions for {ODD}").click()
    page.get_by_role("menuitem", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    page.get_by_text("No API key yet").wait_for()
    assert called(office, key)[0] == 401
    page.get_by_role("link", name="Home").first.click()
    page.get_by_text("are used up").wait_for(state="detached")


def chosen(page: Page, name: str, action: str) -> None:
    page.get_by_role("button", name=f"Actions for {name}").click()
    page.get_by_role("menuitem", name=action).click()


def shown_once(page: Page, name: str) -> str:
    dialog = page.get_by_role("dialog", name=f"Password of {name}")
    password = dialog.get_by_label(f"Password of {name}", exact=True).inner_text()
    dialog.get_by_role("button", name="I have it").click()
    return password


def entered(page: Page, name: str, password: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_an_account_is_made_reset_switched_off_and_deleted(office: Office) -> None:
    page = office.go("/access")
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="New user").click()
    dialog.get_by_label("User name").fill(ODD)
    dialog.get_by_label("Full name").fill(ODD)
    dialog.get_by_role("button", name="Make the account").click()
    first = shown_once(page, ODD)

    ada = office.visit("ada").page
    complaints = Complaints.of(ada)
    complaints.expect("401 .*/v1/(users/me|changes)'")  # it asks who they are, and is told: nobody yet
    ada.goto(office.server.url)
    entered(ada, ODD, first)
    ada.get_by_label("Present password").fill(first)
    ada.get_by_label("New password", exact=True).fill(PASSWORD)
    ada.get_by_label("The new password again").fill(PASSWORD)
    ada.get_by_role("button", name="Change the password").click()
    who_is_no_administrator(ada, office.server)
    complaints.check()

    # Of what ends their login they are told by being asked who they are.
    complaints.expect("401")
    chosen(page, ODD, "Set another password")
    dialog.get_by_label("Another one must be chosen").uncheck()
    dialog.get_by_role("button", name="Set the password").click()
    second = shown_once(page, ODD)
    ada.get_by_role("link", name="Usage").click()
    entered(ada, ODD, second)
    ada.get_by_role("heading", name="Usage", level=1).wait_for()
    chosen(page, ODD, "Logins")
    dialog.get_by_text("signed in").wait_for()
    page.keyboard.press("Escape")

    chosen(page, ODD, "Switch off")
    dialog.get_by_role("button", name="Switch off").click()
    page.get_by_text(f"{ODD} is switched off.").wait_for()
    ada.get_by_role("link", name="Access").click()
    entered(ada, ODD, second)
    ada.get_by_role("alert").wait_for()
    chosen(page, ODD, "Switch on")
    page.get_by_text(f"{ODD} is switched on.").wait_for()
    ada.get_by_role("button", name="Sign in").click()
    ada.get_by_role("heading", name="Your API keys").wait_for()
    chosen(page, ODD, "Delete")
    dialog.get_by_role("button", name="Delete").click()
    page.get_by_role("row").filter(has_text=ODD).wait_for(state="detached")
    ada.get_by_role("link", name="Usage").click()
    ada.get_by_role("button", name="Sign in").wait_for()
    complaints.check()


def who_is_no_administrator(page: Page, server: Daemon) -> None:
    """Sees their models, usage and keys, and of the rest that it is not for them."""
    page.get_by_role("heading", name="Models that you may use").wait_for()
    links = page.get_by_role("navigation").get_by_role("link").all_inner_texts()
    assert [link.strip() for link in links] == ["Home", "Playground", "Usage", "Access"]
    assert grave_violations(page) == []
    page.get_by_role("link", name="Try it").click()
    page.get_by_label("Your message").fill("Hello!")
    page.keyboard.press("Enter")
    page.locator(".answered").get_by_text("tiny model served").wait_for()
    page.get_by_role("link", name="Usage").click()
    page.get_by_text("Of your own account.").wait_for()
    assert not page.get_by_role("button", name="User", exact=True).count()
    page.get_by_role("link", name="Access").click()
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("mine")
    dialog.get_by_role("button", name="Make the key").click()
    dialog.get_by_role("button", name="I have it").click()
    page.get_by_role("row").filter(has_text="mine").wait_for()
    assert grave_violations(page) == []
    for path in ("/cluster", "/models", "/files", "/events", "/settings"):
        page.goto(server.url + path)
        page.get_by_text("This page is for administrators").wait_for()
    assert grave_violations(page) == []
    page.get_by_role("link", name="Home").first.click()


def test_a_provider_for_signing_in_is_tried(office: Office) -> None:
    page = office.go("/access?tab=sign-on")
    page.get_by_label("Issuer of an OpenID Connect provider").fill(office.server.url)
    page.get_by_role("button", name="Try it").click()
    page.locator(".sentence.bad").wait_for()


def taken(page: Page) -> list[list[str]]:
    with page.expect_download() as download:
        page.get_by_role("link", name="Take away as CSV").click()
    return list(csv.reader(io.StringIO(Path(download.value.path()).read_text())))


def test_usage_is_summed_and_narrowed_and_taken_away(office: Office) -> None:
    page = office.page
    told = office.page.request.post(f"{office.server.url}/v1/chat/completions", data=CHAT)
    assert told.ok, told.text()
    office.server.until(lambda: office.send("GET", "/v1/usage")["items"], "usage")
    office.go("/usage")
    table = page.get_by_role("table", name="Usage")
    table.get_by_role("button", name="tiny").click()
    page.get_by_text("Of the model tiny only.").wait_for()
    table.get_by_role("button", name="admin").wait_for()
    rows = taken(page)
    assert {"username", "prompt_token_count"} <= set(rows[0])
    assert any("admin" in row for row in rows)
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("button", name="Day", exact=True).click()
    page.get_by_role("button", name="7 days").click()
    page.get_by_role("img", name="Tokens by day").wait_for()
    page.get_by_role("group", name="What is counted").get_by_role("button", name="Requests").click()
    page.get_by_role("img", name="Requests by day").wait_for()


def test_events_come_live_and_are_filtered_and_searched(office: Office) -> None:
    page = office.go("/events")
    events = page.locator(".event")
    page.get_by_label("Search what is shown").fill("later")
    page.get_by_text("Nothing of this kind").wait_for()
    body = {"name": "later", "source": "local_path", "local_path": "/nonexistent.gguf", "replicas": 0}
    office.send("POST", "/v1/models", body)
    events.filter(has_text="later").first.wait_for()
    page.get_by_role("button", name="Errors", exact=True).click()
    page.get_by_text("Nothing of this kind").wait_for()
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_label("About").select_option("worker")
    page.get_by_text("Nothing of this kind").wait_for()
    page.get_by_label("About").select_option("model")
    page.get_by_label("Search what is shown").fill("")
    events.filter(has_text="later").get_by_role("button").first.click()
    page.get_by_role("dialog").get_by_role("link", name="later").click()
    page.get_by_role("heading", name="later").wait_for()


@pytest.mark.slow
def test_earlier_events_are_fetched_when_they_are_asked_for(office: Office) -> None:
    page, events = office.page, office.page.locator(".event")
    body = {"name": "much", "source": "local_path", "local_path": "/nonexistent.gguf", "replicas": 0}
    model = office.send("POST", "/v1/models", body)["id"]
    for number in range(205):
        office.send("PUT", f"/v1/models/{model}", {"priority": number + 1})
    office.go(f"/events?model={model}")
    page.get_by_text("Of the model much and its instances only.").wait_for()
    events.first.wait_for()
    page.keyboard.press("End")
    page.get_by_role("button", name="Show earlier ones").click()
    page.get_by_role("button", name="Show earlier ones").wait_for(state="detached")
    page.keyboard.press("End")
    events.filter(has_text="Deployed").wait_for()
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("tab", name="Audit trail").click()
    page.get_by_role("table", name="Audit trail").wait_for()


def test_the_audit_trail_is_filtered_and_taken_away(office: Office) -> None:
    refused = office.visit("stranger").page.request.post(
        f"{office.server.url}/auth/login", data={"username": ODD, "password": "wrong"}
    )
    assert refused.status == 401
    page = office.go("/events?tab=audit")
    page.get_by_role("button", name="Refused").click()
    page.get_by_role("combobox", name="Action").select_option("auth.")
    row = page.get_by_role("table").get_by_role("row").filter(has_text=ODD).first
    row.wait_for()
    page.get_by_label("Search names, actions, addresses").fill("nobody-of-this-name")
    page.get_by_text("Nothing of this kind").wait_for()
    page.get_by_label("Search names, actions, addresses").fill("千")
    row.wait_for()
    row.get_by_role("button").click()
    page.get_by_role("dialog").get_by_text("127.0.0.1").first.wait_for()
    page.keyboard.press("Escape")
    rows = taken(page)
    assert "action" in rows[0]
    assert all(any(ODD in cell for cell in row) for row in rows[1:]) and rows[1:]


def test_settings_tell_where_they_come_from_and_no_secret(office: Office) -> None:
    page = office.go("/settings")
    page.get_by_role("button", name="Set by you").click()
    one = page.get_by_role("listitem").filter(has=page.get_by_text("bootstrap_password", exact=True))
    one.get_by_text("secret").wait_for()
    assert PASSWORD not in page.inner_text("body")
    page.get_by_label("Search names").fill("force_auth")
    page.get_by_role("listitem").filter(has_text="force_auth_localhost").wait_for()
    assert not one.count()
    page.get_by_label("Search names").fill("no such thing")
    page.get_by_role("button", name="Show all").click()
    one.wait_for()


def has_focus(page: Page, name: str) -> None:
    """Waits until what is called so has the focus: a browser gives it when it has drawn."""
    page.wait_for_function(
        """(name) => {
            const at = document.activeElement;
            return (at.getAttribute('aria-label') ?? at.innerText).trim() === name;
        }""",
        arg=name,
    )


def test_the_keyboard_alone_is_enough(office: Office) -> None:
    page = office.go("/models")
    press = page.keyboard.press
    page.evaluate("document.activeElement.blur()")
    press("Tab")
    has_focus(page, "Skip to the content")
    press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    press("/")
    has_focus(page, "Search names, sources, engines")
    page.keyboard.type("tin/")
    assert page.get_by_label("Search names, sources").input_value() == "tin/"
    press("Backspace")
    page.get_by_role("row").filter(has_text="tiny").wait_for()

    header = page.get_by_role("columnheader", name="Name")
    assert header.get_attribute("aria-sort") == "ascending"
    header.get_by_role("button").focus()
    press("Enter")
    assert header.get_attribute("aria-sort") == "descending"

    menu = page.get_by_role("button", name="What to do with tiny")
    menu.focus()
    press("Enter")
    page.get_by_role("menu").wait_for()
    has_focus(page, "Stop")
    press("ArrowUp")
    has_focus(page, "Delete")
    press("Escape")
    page.get_by_role("menu").wait_for(state="detached")
    has_focus(page, "What to do with tiny")
    press("Enter")
    page.get_by_role("menuitem", name="Stop").wait_for()
    press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    for _ in range(8):  # around in it, and past the browser itself
        assert page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        )
        press("Tab")
    press("Escape")
    dialog.wait_for(state="detached")
    has_focus(page, "What to do with tiny")

    office.go("/access")
    tabs = page.get_by_role("tablist")
    tabs.get_by_role("tab", name="Users").focus()
    press("ArrowRight")
    page.get_by_role("tab", name="API keys", selected=True).wait_for()
    has_focus(page, "API keys")
    press("ArrowLeft")
    page.get_by_role("tab", name="Users", selected=True).wait_for()
    new = page.get_by_role("button", name="New user")
    new.focus()
    press("Enter")
    page.get_by_role("dialog").wait_for()
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    has_focus(page, "New user")
    page.get_by_role("link", name="Events").focus()
    press("Enter")
    page.get_by_role("heading", name="Events").wait_for()
    page.wait_for_function("document.activeElement.tagName === 'H1'")

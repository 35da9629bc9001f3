"""The console's playground and the page of an instance, in a real browser against a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser import Visitor, running_browser
from tests.daemon import Daemon, daemon
from tests.models import make_tiny_llm

if TYPE_CHECKING:
    from playwright.sync_api import Page

PASSWORD = "Console-1x!"
REPLY = (
    'Look: <img src=x onerror="document.title=1"> **bold** [here](javascript:alert(1)) [out](https://a.b/).'
)
NAME = 'naïve "模型" <i>'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A model whose answer is full of markup, and never ends unless it is stopped."""
    folder = tmp_path_factory.mktemp("answers")
    path = make_tiny_llm(folder / "loud.gguf", REPLY)
    with daemon(folder / "data", env={"GPUSTACK_BOOTSTRAP_PASSWORD": PASSWORD}) as one:
        body = {
            "name": NAME,
            "source": "local_path",
            "local_path": str(path),
            "backend_parameters": ["-c", "8192", "--parallel=1", "--ignore-eos"],
        }
        status, told = one.call("POST", "/v1/models", body)
        assert status == 200, told
        one.running(NAME)
        yield one


@pytest.fixture(scope="module")
def visitor(served: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """Somebody who is signed in; what the browser complains of fails the tests."""
    with running_browser(tmp_path_factory.mktemp("browser"), __name__) as visit:
        one = visit("operator")
        complaints: list[str] = []
        one.page.on("pageerror", lambda error: complaints.append(str(error)))
        one.page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        body = {"username": "admin", "password": PASSWORD}
        answer = one.page.context.request.post(f"{served.url}/auth/login", data=body)
        assert answer.ok, answer.text()
        yield one
        assert not complaints


def say(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


def test_an_answer_is_stopped_and_what_it_has_of_markup_is_text(served: Daemon, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(f"{served.url}/playground?model={NAME}")
    say(page, "Go on")
    answer = page.locator(".answered")
    answer.locator("strong").nth(2).wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    answer.get_by_text("stopped").wait_for()
    said = answer.inner_text()
    assert '<img src=x onerror="document.title=1">' in said
    assert "first token after" in said and "tokens/s" in said
    assert answer.locator("img").count() == 0 and page.title() != "1"
    assert answer.locator("strong").first.inner_text() == "bold"
    assert answer.locator("a[href^=javascript]").count() == 0
    assert answer.locator("a[href]").first.get_attribute("rel") == "noopener noreferrer"
    whispered = page.locator("[role=status].unseen").inner_text()
    assert "bold" in whispered and NAME in whispered


def test_conversations_are_kept_in_the_browser_until_they_are_cleared(
    served: Daemon, visitor: Visitor
) -> None:
    page = visitor.page
    page.goto(f"{served.url}/playground")
    page.get_by_role("button", name="History").click()
    page.get_by_role("menuitem", name="Go on").click()
    page.locator(".answered strong").nth(2).wait_for()
    page.get_by_role("button", name="History").click()
    page.get_by_role("menuitem", name="Clear all").click()
    page.get_by_role("dialog").get_by_role("button", name="Clear all").click()
    page.get_by_text("Say something").wait_for()
    kept = page.evaluate("Object.keys(localStorage).filter((name) => name.startsWith('playground'))")
    assert kept == []


def test_code_that_is_shown_does_the_same_with_a_key_made_there(served: Daemon, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(f"{served.url}/playground?model={NAME}")
    page.get_by_label("Most tokens of an answer").fill("24")
    page.get_by_role("button", name="View code").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Make a key for it").click()
    key = dialog.get_by_label("Key", exact=True).inner_text()
    assert key.startswith("gpustack_")
    code = dialog.get_by_label("curl").inner_text()
    body = json.loads(code.split("-d '")[1].rstrip("'"))
    assert (body["model"], body["max_tokens"]) == (NAME, 24)
    status, told = served.call("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {key}"})
    assert status == 200 and told["usage"]["completion_tokens"] == 24
    assert served.call("GET", "/v1/workers", None, {"authorization": f"Bearer {key}"})[0] == 403


def test_the_page_of_an_instance_shows_its_log_live(served: Daemon, visitor: Visitor) -> None:
    page = visitor.page
    instance = served.instances(NAME)[0]
    page.goto(f"{served.url}/instances/{instance['id']}?tab=log")
    assert page.locator("h1").inner_text() == instance["name"]
    log = page.get_by_role("region", name="Log")
    log.get_by_text("model loaded").first.wait_for()
    page.get_by_label("Only lines that have").fill("listening on")
    assert log.locator("mark").first.inner_text() == "listening on"
    page.get_by_label("Only lines that have").fill("")
    before = log.locator("div > div").count()
    served.call("POST", "/v1/completions", {"model": NAME, "prompt": "Hi", "max_tokens": 4})
    log.locator("div > div").nth(before).wait_for(state="attached")
    page.get_by_role("tab", name="Memory").click()
    page.get_by_role("table", name="Memory").get_by_text("Weights").wait_for()


def test_a_worker_leads_to_its_files(served: Daemon, visitor: Visitor) -> None:
    page, worker = visitor.page, served.instances(NAME)[0]["worker_id"]
    page.goto(f"{served.url}/cluster/{worker}")
    page.get_by_role("main").get_by_role("link", name="Files").click()
    page.get_by_role("heading", name="Files").wait_for()
    assert page.url.endswith(f"/files?worker={worker}")
    page.get_by_role("table", name="Files").get_by_role("button", name="loud.gguf").first.wait_for()

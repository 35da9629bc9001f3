"""The console deploys, mends and calls a model: with the mouse alone, on a real daemon with a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Visitor, running_browser
from tests.daemon import Daemon, daemon
from tests.models.tiny_llm import REPLY, make_tiny_llm

PASSWORD = "Console-1x!"
NAME = '"Tiny" l\'été 模型 <b>'
CALLED = NAME.lower().replace(" ", "-")
"""What the console suggests to call it."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daemon]:
    file = make_tiny_llm(tmp_path / "tiny.gguf")
    template = {
        "source": "local_path",
        "local_path": str(file),
        "backend": "llama-box",
        "categories": ["llm"],
        "worker_selector": {"zone": "north"},
    }
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(json.dumps([{"name": NAME, "templates": [template]}]))
    given = ("--model-catalog-file", str(catalog), "--bootstrap-password", PASSWORD)
    with daemon(tmp_path / "data", *given) as one:
        yield one


@pytest.fixture
def visitor(server: Daemon, tmp_path: Path) -> Iterator[Visitor]:
    """An administrator who is signed in; what the console of the browser says against a page fails the test."""
    with running_browser(tmp_path, "console-models") as visit:
        one = visit("admin")
        said: list[str] = []
        one.page.on("pageerror", lambda fault: said.append(str(fault)))
        one.page.on(
            "console",
            lambda told: said.append(f"{told.text} {told.location}") if told.type == "error" else None,
        )
        data = {"username": "admin", "password": PASSWORD}
        assert one.page.context.request.post(f"{server.url}/auth/login", data=data).ok
        yield one
        assert said == []


def test_a_model_is_deployed_mended_and_called_with_the_mouse_alone(server: Daemon, visitor: Visitor) -> None:
    page = visitor.page
    button = lambda name: page.get_by_role("button", name=name)  # noqa: E731

    page.goto(f"{server.url}/models")
    page.get_by_role("link", name="Deploy a model").click()
    button(NAME).click()
    button("tiny.gguf").click()
    plan = page.get_by_role("region", name="What would come of it")
    plan.get_by_text("is not labelled zone=north").first.wait_for()
    remedy = plan.get_by_role("button", name="Label worker")
    remedy.wait_for()
    visitor.picture("why-not")
    button("Deploy anyway").click()

    # on its page it says why it waits, and offers what would help
    page.get_by_role("heading", name=CALLED).wait_for()
    page.get_by_text("What would help").wait_for()
    visitor.picture("waits")
    button("Label worker").click()
    button("Do it").click()
    instances = page.get_by_role("tabpanel", name="Instances")
    instances.get_by_text("running", exact=True).wait_for()
    visitor.picture("runs")

    page.get_by_role("tab", name="Call it").click()
    button("Make a key for it").click()
    key = page.get_by_label("Key", exact=True).inner_text()
    body = {"model": CALLED, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 40}
    headers = {"authorization": f"Bearer {key}"}
    status, answer = server.call("POST", "/v1/chat/completions", body, headers)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, REPLY)
    assert server.call("GET", "/v1/users", headers=headers)[0] == 403
    button("Python").click()
    assert (
        f"model={json.dumps(CALLED, ensure_ascii=False)}"
        in page.get_by_label("Python", exact=True).inner_text()
    )

    # the list stops it in place, once it has said what that ends
    page.get_by_role("link", name="Models", exact=True).click()
    button(f"What to do with {CALLED}").click()
    page.get_by_role("menuitem", name="Stop").click()
    question = page.get_by_role("dialog")
    assert "This ends" in question.inner_text()
    question.get_by_role("button", name="Stop").click()
    page.get_by_text("0/0").wait_for()
    visitor.picture("stopped")

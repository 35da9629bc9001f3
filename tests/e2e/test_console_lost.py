"""The console while a worker is drained, and while its server is lost and comes back: nobody loads a page anew."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from tests.browser import running_browser
from tests.console import PASSWORD, Complaints, grave_violations, requires_axe, requires_console, sign_in
from tests.daemon import Daemon, daemon
from tests.models import make_tiny_llm
from tests.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello!"}]}
HOME = "here"


@attrs.define
class Cluster:
    """A server that has a worker, and another machine."""

    folder: Path
    server: Daemon
    stack: ExitStack
    given: tuple[str, ...]

    def lose(self) -> None:
        assert self.server.stop(signal.SIGKILL) == -signal.SIGKILL

    def come_back(self) -> None:
        self.server = self.stack.enter_context(daemon(self.folder / "server", *self.given))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    requires_console()
    requires_axe()
    folder = tmp_path_factory.mktemp("lost")
    where = ("--host", "127.0.0.1", "--port", str(free_port()), "--worker-name", HOME)
    given = (*where, "--bootstrap-password", PASSWORD)
    with ExitStack() as stack:
        server = stack.enter_context(daemon(folder / "server", *given))
        body = {
            "name": "tiny",
            "source": "local_path",
            "local_path": str(make_tiny_llm(folder / "tiny.gguf")),
        }
        assert server.call("POST", "/v1/models", body)[0] == 200
        server.running("tiny")
        token = (server.data_dir / "token").read_text().strip()
        join = (
            "--server-url",
            server.url,
            "--token",
            token,
            "--worker-ip",
            "127.0.0.1",
            "--worker-name",
            "there",
        )
        stack.enter_context(daemon(folder / "worker", *join))
        one = Cluster(folder, server, stack, given)
        server.until(lambda: ready(one) == {HOME, "there"}, "the other worker")
        try:
            yield one
        finally:
            if one.server.process.poll() is not None:
                one.come_back()  # to end the engines that it left


def ready(cluster: Cluster) -> set[str]:
    """Workers that can be given something."""
    items = cluster.server.call("GET", "/v1/workers")[1]["items"]
    return {one["name"] for one in items if one["state"] == "ready" and one["status"].get("engines")}


@pytest.fixture(scope="module")
def context(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with running_browser(tmp_path_factory.mktemp("browser"), __name__) as visit:
        page = visit("operator").page
        sign_in(page, cluster.server)
        yield page.context


def test_a_worker_is_drained_with_the_mouse_and_put_back(cluster: Cluster, context: BrowserContext) -> None:
    page = context.pages[0]
    complaints = Complaints.of(page)
    page.goto(f"{cluster.server.url}/cluster")
    (before,) = cluster.server.running("tiny")
    assert before["worker_name"] == HOME

    def choose(action: str) -> None:
        page.get_by_role("button", name=f"What to do with {HOME}").click()
        page.get_by_role("menuitem", name=action).click()

    choose("Drain")
    plan = page.get_by_role("dialog").get_by_role("listitem")
    assert before["name"] in plan.inner_text()
    assert "goes to worker there" in plan.inner_text()
    page.get_by_role("dialog").get_by_role("button", name="Drain", exact=True).click()
    page.get_by_text(f"{HOME} is being drained.").wait_for()
    row = page.locator(".worker").filter(has=page.get_by_role("link", name=HOME, exact=True))
    row.get_by_text("draining").wait_for()
    page.get_by_role("link", name=HOME, exact=True).click()
    page.get_by_text("It is drained: nothing runs there any more.").wait_for()
    page.get_by_text("Nothing runs there.", exact=True).wait_for()
    (after,) = cluster.server.running("tiny")
    assert after["worker_name"] == "there"
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("link", name="tiny", exact=True).click()
    page.get_by_role("tabpanel").get_by_role("link", name="there").wait_for()

    page.get_by_role("link", name="Cluster", exact=True).first.click()
    choose("Uncordon")
    page.get_by_text(f"{HOME} takes instances again.").wait_for()
    row.get_by_text("draining").wait_for(state="detached")
    assert ready(cluster) == {HOME, "there"}
    complaints.check()


def test_pages_outlive_their_server_and_go_on_by_themselves(
    cluster: Cluster, context: BrowserContext
) -> None:
    (instance,) = cluster.server.running("tiny")
    models, events, log = (context.new_page() for _ in range(3))
    complaints = [Complaints.of(page) for page in (models, events, log)]
    models.goto(f"{cluster.server.url}/models")
    models.get_by_role("link", name="tiny", exact=True).wait_for()
    events.goto(f"{cluster.server.url}/events")
    events.locator(".event").first.wait_for()
    log.goto(f"{cluster.server.url}/instances/{instance['id']}?tab=log")
    lines = log.get_by_role("region", name="Log").locator("div > div")
    log.get_by_text("model loaded").first.wait_for()
    for page in (models, events, log):
        page.evaluate("window.stayed = true")
    known = events.locator(".event").count()

    for one in complaints:
        one.expect("net::ERR_")
    cluster.lose()
    for page in (models, events, log):
        page.get_by_role("alert").get_by_text("The server does not answer").wait_for()
    assert grave_violations(models) == []
    assert models.get_by_role("link", name="tiny", exact=True).is_visible()
    assert events.locator(".event").count() == known
    assert lines.get_by_text("model loaded").first.is_visible()
    # A page that has not been opened yet is wanted while there is nobody to give it.
    models.get_by_role("button", name="What to do with tiny").click()
    models.get_by_role("menuitem", name="Edit").click()
    models.get_by_text("The server does not answer. Nothing was changed").first.wait_for()
    # What changes before a page is back is on it afterwards.
    context.route("**/v1/changes*", lambda route: route.abort())
    cluster.come_back()
    body = {"name": "meanwhile", "source": "local_path", "local_path": "/nonexistent.gguf", "replicas": 0}
    assert cluster.server.call("POST", "/v1/models", body)[0] == 200
    assert not models.get_by_text("meanwhile").count()
    context.unroute("**/v1/changes*")
    models.get_by_role("tab", name="Edit").wait_for()
    models.get_by_role("link", name="Models", exact=True).click()
    models.get_by_role("link", name="meanwhile", exact=True).wait_for()
    for page in (models, events, log):
        page.get_by_role("alert").wait_for(state="detached")
        assert page.evaluate("window.stayed") is True
    events.locator(".event").filter(has_text="meanwhile").first.wait_for()
    cluster.server.running("tiny")
    log.get_by_text("Live.").wait_for()
    lines.get_by_text("model loaded").first.wait_for()
    before = lines.count()
    cluster.server.until(
        lambda: cluster.server.call("POST", "/v1/chat/completions", CHAT)[0] == 200, "an answer of the model"
    )
    lines.nth(before).wait_for(state="attached")
    for one in complaints:
        one.check()

"""The guide in a real browser, under the headers that the daemon sends: themes, languages, search, copying."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docs.guide.build import build
from gpustack.api.resources.guide import GUIDE_HEADERS
from tests.browser import Visitor, running_browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("guide") / "out"
    build(folder)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def end_headers(self) -> None:
            for name, value in GUIDE_HEADERS:
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def visitor(tmp_path: Path, address: str) -> Iterator[tuple[Visitor, list[str]]]:
    """A visitor, and what went wrong: words on the console, and requests to elsewhere."""
    with running_browser(tmp_path / "browser", "guide") as visit:
        one, wrong = visit("reader"), list[str]()
        note: Callable[[str], None] = wrong.append
        one.page.on("console", lambda message: note(message.text) if message.type == "error" else None)
        one.page.on("pageerror", lambda error: note(str(error)))
        one.page.on(
            "request",
            lambda request: None if request.url.startswith((address, "data:")) else note(request.url),
        )
        yield one, wrong


def test_a_reader_searches_copies_and_changes_theme_and_language(
    visitor: tuple[Visitor, list[str]], address: str
) -> None:
    page, wrong = visitor[0].page, visitor[1]
    page.goto(f"{address}/install.html")
    page.get_by_role("button", name="Light or dark").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.keyboard.press("/")
    page.keyboard.type("read the token")
    page.locator("#found a").first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/workers.html#1-read-the-token-on-the-server")
    assert page.locator("html").get_attribute("data-theme") == "dark", "it is remembered"

    page.goto(f"{address}/first-model.html")
    page.locator(".code.sh").first.hover()
    page.locator(".code.sh .copy").first.click()
    page.get_by_text("Copied").wait_for()
    page.get_by_role("link", name="中文").click()
    page.wait_for_url(f"{address}/zh-first-model.html")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    for asked, answer in (("密钥", "zh-first-model.html"), ("显存不足", "memory.html")):
        page.get_by_role("combobox").fill(asked)
        page.locator(f"#found a[href^='{answer}']").first.wait_for()
    assert not wrong


def test_on_a_telephone_nothing_is_wider_than_the_screen(
    visitor: tuple[Visitor, list[str]], address: str
) -> None:
    page, wrong = visitor[0].page, visitor[1]
    page.set_viewport_size({"width": 390, "height": 800})
    for name in ("index", "options", "gateway", "architecture", "zh-install"):
        page.goto(f"{address}/{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    page.get_by_role("button", name="页面").click()
    page.get_by_role("navigation", name="页面").get_by_role("link", name="安装").wait_for()
    assert not wrong

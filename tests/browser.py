"""A real browser for tests: headless Chromium, each visitor a profile of their own, all they do recorded.

Pictures and a trace (``playwright show-trace trace.zip``) are left in the test's temporary folder, or below
``GPUSTACK_TEST_ARTIFACTS`` where that is set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tests.daemon import WITHIN
from tests.needs import requires, requires_module

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_MILLISECONDS = WITHIN * 1000


@attrs.define(eq=False)
class Visitor:
    """Somebody at a browser. ``page`` is Playwright's."""

    page: Page
    folder: Path
    seen: list[str] = attrs.field(factory=list)
    """Addresses that were shown, in turn."""

    def picture(self, name: str) -> Path:
        """Keep what is on the screen, numbered in the order of taking."""
        path = self.folder / f"{len(list(self.folder.glob('*.png'))) + 1:02}-{name}.png"
        self.page.screenshot(path=path)
        return path

    def cookies(self) -> dict[str, dict[str, object]]:
        """The cookies of this profile by name."""
        return {cookie["name"]: dict(cookie) for cookie in self.page.context.cookies()}

    def sign_out(self) -> None:
        """As a person does: in the menu of their account."""
        self.page.get_by_role("button", name="Your account").click()
        self.page.get_by_role("menuitem", name="Sign out").click()

    @property
    def text(self) -> str:
        """What the page says."""
        return self.page.inner_text("body")


@contextmanager
def running_browser(folder: Path, test: str, *, traced: bool = True) -> Iterator[Callable[[str], Visitor]]:
    """Give a function that makes visitors by name; each leaves its pictures, and ``trace.zip`` if ``traced``, in a
    folder. To trace takes about as long again as what is done."""
    chromium = requires("chromium")
    requires_module("playwright")
    from playwright.sync_api import sync_playwright

    if chosen := os.environ.get("GPUSTACK_TEST_ARTIFACTS"):
        folder = Path(chosen) / re.sub(r"[^\w-]+", "_", test)
    with ExitStack() as stack:
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        stack.callback(browser.close)
        yield lambda name: stack.enter_context(_visitor(browser, folder / name, traced))


@contextmanager
def _visitor(browser: Browser, folder: Path, traced: bool) -> Iterator[Visitor]:
    folder.mkdir(parents=True)
    context = browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(_MILLISECONDS)
    if traced:
        context.tracing.start(screenshots=True, snapshots=True)
    page = context.new_page()
    visitor = Visitor(page, folder)
    page.on("framenavigated", lambda frame: visitor.seen.append(frame.url))
    try:
        yield visitor
    finally:
        if traced:
            context.tracing.stop(path=folder / "trace.zip")
        context.close()

"""The web console in tests: who is signed in, the way from page to page, and what axe finds on one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from gpustack.api.context import ServerDescription
from tests.daemon import Daemon
from tests.needs import missing

if TYPE_CHECKING:
    from playwright.sync_api import Page

PASSWORD = "Console-1x!"
AXE = Path(__file__).parents[1] / "console" / "node_modules" / "axe-core" / "axe.min.js"
WORDS = AXE.parents[3] / "console" / "src" / "words"
_WORD = re.compile(r"^  (?:'([\w.-]+)'|(\w+)): '(.*)',$", re.MULTILINE)
_GRAVE = ("serious", "critical")


def requires_console() -> None:
    if not (ServerDescription().console / "index.html").is_file():
        missing("the web console is not built", "make docs-ui")


def requires_axe() -> None:
    """Skip the test where axe is not there: it comes with what builds the console."""
    if not AXE.is_file():
        missing("axe-core is not installed", "make docs-ui")


@attrs.define(eq=False)
class Complaints:
    """What a browser says against pages: errors of its console, and faults that nobody caught."""

    said: list[str] = attrs.field(factory=list)
    expected: list[re.Pattern[str]] = attrs.field(factory=list)

    @classmethod
    def of(cls, page: Page) -> Complaints:
        made = cls()
        page.on("pageerror", lambda fault: made.said.append(f"{fault} {fault.stack}"))
        page.on(
            "console",
            lambda told: made.said.append(f"{told.text} {told.location}") if told.type == "error" else None,
        )
        return made

    def expect(self, pattern: str) -> None:
        """From now on, until it is forgotten, no complaint is what this finds."""
        self.expected.append(re.compile(pattern))

    def check(self) -> None:
        left = [one for one in self.said if not any(each.search(one) for each in self.expected)]
        assert not left, left


def sign_in(page: Page, server: Daemon, name: str = "admin", password: str = PASSWORD) -> None:
    """What the form does, without the form."""
    data = {"username": name, "password": password}
    answer = page.context.request.post(f"{server.url}/auth/login", data=data)
    assert answer.ok, answer.text()


def walk_to(page: Page, path: str) -> None:
    """To another page of the console as a link of it leads there: without loading anything anew."""
    page.evaluate(
        """(path) => new Promise((done) => {
            history.pushState(null, '', path);
            dispatchEvent(new PopStateEvent('popstate'));
            requestAnimationFrame(() => requestAnimationFrame(done));
        })""",
        path,
    )
    page.locator(".waiting").first.wait_for(state="detached")


def grave_violations(page: Page) -> list[dict[str, Any]]:
    """What axe finds of serious and critical violations on what is shown now."""
    if page.evaluate("typeof window.axe") == "undefined":
        page.evaluate(AXE.read_text())
    found = page.evaluate(
        """async () => (await axe.run(document, { resultTypes: ['violations'] })).violations.map((one) => (
            { id: one.id, impact: one.impact, help: one.help,
              nodes: one.nodes.slice(0, 5).map((node) => `${node.html.slice(0, 300)}: ${node.failureSummary}`) }))"""
    )
    return [one for one in found if one["impact"] in _GRAVE]


class Words:
    """What the console says in a language, as its sources have it: ``Words("zh")("nav.home")``."""

    def __init__(self, language: str) -> None:
        self._words: dict[str, str] = {}
        for path in sorted((WORDS / language).glob("*.js")):
            for quoted, bare, text in _WORD.findall(path.read_text()):
                self._words[f"{path.stem}.{quoted or bare}"] = text.replace("\\'", "'")

    def __call__(self, key: str, **values: object) -> str:
        return self._words[key].format(**values)


def sticks_out(page: Page) -> list[str]:
    """What reaches beyond the right edge of the window without a way to scroll there."""
    return page.evaluate(  # type: ignore[no-any-return]
        """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll('main *')]
            .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
            .slice(0, 5)
            .map((one) => one.outerHTML.slice(0, 300))"""
    )

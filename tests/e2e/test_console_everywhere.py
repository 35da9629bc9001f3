"""Every page of the console, with all that it can show: no grave violation for axe, in both themes and languages.

All that has a name is called something with quotes, accents, Chinese and markup, and comes out as text.
"""

from __future__ import annotations

import json
import secrets
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs
import pytest

from tests.browser import running_browser
from tests.child import ROOT
from tests.console import (
    PASSWORD,
    Complaints,
    Words,
    grave_violations,
    requires_axe,
    requires_console,
    sign_in,
    sticks_out,
    walk_to,
)
from tests.daemon import Daemon, daemon
from tests.fakes.hub import running_hub
from tests.models import make_tiny_llm

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

GOT_IT = "got it"
ODD = f"""<img src=x onerror="document.title='{GOT_IT}'"> l'été "模型" & <b>"""
LONG = "w" * 60 + ".example"
"""Names of workers are those of machines."""
DEVICE = 'Radeon 显卡 "é" <b>'
GIB = 2**30


@attrs.frozen
class World:
    server: Daemon
    chat: int
    """Id of a model that serves."""
    waiting: int
    """Id of one whose instance has no place."""
    failing: int
    """Id of one whose engine says something and ends."""
    user: int
    file: str

    def instance(self, model: int) -> int:
        return next(int(one["id"]) for one in self.server.instances() if one["model_id"] == model)


def made(server: Daemon, path: str, body: object) -> dict[str, Any]:
    status, answer = server.call("POST", path, body)
    assert status == 200, answer
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    requires_console()
    folder = tmp_path_factory.mktemp("everywhere")
    odd = folder / 'l\'été "模型" <i>'
    odd.mkdir()
    file = make_tiny_llm(odd / "tiny <b>.gguf")
    template = {
        "source": "local_path",
        "local_path": str(file),
        "backend": "llama-box",
        "categories": ["llm"],
    }
    (folder / "catalog.yaml").write_text(
        json.dumps([{"name": ODD, "description": ODD, "templates": [template]}])
    )
    memory = {"total": 24 * GIB}
    devices = [{"name": DEVICE, "vendor": "AMD", "index": index, "memory": memory} for index in range(3)]
    (folder / "config.yaml").write_text(json.dumps({"resources": {"gpu_devices": devices}}))
    given = (
        "--model-catalog-file",
        str(folder / "catalog.yaml"),
        "--config-file",
        str(folder / "config.yaml"),
        "--worker-name",
        LONG,
    )
    password = ("--bootstrap-password", PASSWORD)
    with running_hub() as hub:
        hub.add("me/模型-é", {"tiny-Q8_0.gguf": file})
        with daemon(folder / "data", *given, *password, env={"HF_ENDPOINT": hub.url}) as one:
            yield troubled(furnished(one, file))


def furnished(server: Daemon, file: Path) -> World:
    model = {"name": ODD, "description": ODD, "source": "local_path", "local_path": str(file)}
    chat = made(server, "/v1/models", {**model, "gpu_selector": {}, "cpu_offloading": True})
    program = f"{sys.executable} -m tests.fakes.engine --port {{port}}"
    engine = {
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": program,
        "health_path": "/health",
        "env": {"PYTHONPATH": str(ROOT), "GPUSTACK_MODEL_VRAM_CLAIM": str(9 * GIB)},
    }
    kinds = ["embedding", "reranker", "image", "text_to_speech", "speech_to_text"]
    made(server, "/v1/models", {**engine, "name": f"{ODD} 2", "categories": kinds})
    server.running(ODD)
    server.running(f"{ODD} 2")
    limits = {"tokens_per_day": 900, "requests_per_minute": 1000}
    body = {
        "username": ODD,
        "full_name": ODD,
        "password": PASSWORD,
        "require_password_change": True,
        "limits": limits,
    }
    user = made(server, "/v1/users", body)
    key = {"name": ODD, "description": ODD, "allowed_model_names": [ODD], "limits": limits}
    one = made(server, "/v1/api-keys", key)
    headers = {"authorization": f"Bearer {one['value']}"}
    call = {"model": ODD, "messages": [{"role": "user", "content": "é"}], "max_tokens": 8}
    assert server.call("POST", "/v1/chat/completions", call, headers)[0] == 200
    # Less than was used: nothing is left.
    assert server.call("PUT", f"/v1/api-keys/{one['id']}", {"limits": {"tokens_per_day": 5}})[0] == 200
    assert server.call("POST", "/v1/chat/completions", call, headers)[0] == 429
    server.until(lambda: server.call("GET", "/v1/usage")[1]["items"], "usage")
    return World(server, chat["id"], 0, 0, user["id"], str(file))


def troubled(world: World) -> World:
    """Things are the matter that a person should decide."""
    server = world.server
    waiting = {
        "name": f"{ODD} 3",
        "source": "local_path",
        "local_path": world.file,
        "worker_selector": {ODD: ODD},
    }
    first = made(server, "/v1/models", waiting)["id"]
    said = f"print({ODD!r}, flush=True); raise SystemExit({ODD!r})"
    failing = {
        "name": f"{ODD} 4",
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": f"{sys.executable} -c {shlex.quote(said)} {{port}}",
        "health_path": "/health",
    }
    second = made(server, "/v1/models", failing)["id"]
    states = lambda: {one["model_id"]: one["state"] for one in server.instances()}  # noqa: E731
    server.until(lambda: (states().get(first), states().get(second)) == ("pending", "error"), "the troubles")
    labels = {"zone": ODD, "地区": "é"}
    status, told = server.call(
        "PUT",
        "/v1/workers/1",
        {"labels": labels, "taints": [{"key": "a", "value": "b", "effect": "PreferNoSchedule"}]},
    )
    assert status == 200, told
    return attrs.evolve(world, waiting=first, failing=second)


@attrs.frozen
class Tour:
    """What there is to see, shown one after the other: each step is called something when it is on the screen."""

    page: Page
    world: World
    word: Words

    def __iter__(self) -> Iterator[str]:
        parts = (
            self.models,
            self.forms,
            self.instances,
            self.cluster,
            self.files,
            self.playground,
            self.usage,
        )
        yield self.shown("/")
        yield self.shown("/first-steps")
        for part in (*parts, self.users, self.keys, self.sign_on, self.events, self.account):
            yield from part()
        yield self.shown("/settings")
        yield self.shown("/not/there")

    def shown(self, path: str, text: str = "") -> str:
        walk_to(self.page, path)
        self.main.locator("h1, h2").first.wait_for()
        if text:
            self.main.get_by_text(text).first.wait_for()
        return path

    @property
    def main(self) -> Locator:
        return self.page.locator("main")

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    def button(self, key: str, **values: object) -> Locator:
        return self.main.get_by_role("button", name=self.word(key, **values), exact=True).first

    def from_menu(self, key: str, name: str, *items: str) -> Iterator[str]:
        """The dialogs of a menu."""
        for item in items:
            self.button(key, name=name).click()
            self.page.get_by_role("menuitem", name=self.word(item), exact=True).click()
            self.dialog.locator("h2").wait_for()
            self.page.locator(".waiting").first.wait_for(state="detached")
            yield f"a dialog: {item}"
            self.closed()

    def from_button(self, key: str) -> Iterator[str]:
        self.button(key).click()
        self.dialog.locator("h2").wait_for()
        yield f"a dialog: {key}"
        self.closed()

    def closed(self) -> None:
        self.page.keyboard.press("Escape")
        self.dialog.wait_for(state="detached")

    def unfold(self, inside: Locator) -> None:
        for fold in inside.locator("details").all():
            fold.locator("summary").first.click()

    def models(self) -> Iterator[str]:
        yield self.shown("/models", ODD)
        self.button("models.actions", name=ODD).click()
        yield "a menu of /models"
        self.page.keyboard.press("Escape")
        yield from self.from_menu("models.actions", ODD, "models.stop")
        for model in (self.world.chat, self.world.waiting, self.world.failing):
            for tab in ("", "call", "edit", "access", "revisions"):
                yield self.shown(f"/models/{model}?tab={tab}")
        self.shown(f"/models/{self.world.chat}?tab=call")
        self.button("call.make").click()
        self.main.get_by_label(self.word("call.key"), exact=True).wait_for()
        yield "a key of /models that is shown once"

    def forms(self) -> Iterator[str]:
        for source in (
            "catalog",
            "huggingface",
            "model_scope",
            "ollama_library",
            "local_path",
            "custom",
            "raw",
        ):
            yield self.shown(f"/models/new?from={source}")
        self.shown("/models/new")
        self.main.get_by_role("button", name=ODD).first.click()
        self.main.get_by_role("button", name="tiny <b>.gguf").click()
        self.main.get_by_role("region", name=self.word("plan.title")).locator("li").first.wait_for()
        self.unfold(self.main)
        yield "/models/new with all of its fields and a plan"

    def instances(self) -> Iterator[str]:
        for model in (self.world.chat, self.world.waiting, self.world.failing):
            for tab in ("", "log", "placement", "memory", "command"):
                yield self.shown(f"/instances/{self.world.instance(model)}?tab={tab}")
        yield self.shown("/instances/999")

    def cluster(self) -> Iterator[str]:
        yield self.shown("/cluster", LONG)
        self.main.locator("[data-device]").first.focus()
        self.page.locator(".card-over").wait_for()
        yield "/cluster with what is said of a device"
        yield from self.from_menu(
            "cluster.actions",
            LONG,
            *(f"cluster.{one}" for one in ("drain", "labels", "taints", "bar", "remove")),
        )
        yield from self.from_button("cluster.add")
        yield self.shown("/cluster/1", LONG)

    def files(self) -> Iterator[str]:
        yield self.shown("/files", Path(self.world.file).name)
        yield from self.from_menu(
            "files.actions", self.world.file, "files.details", "files.copy", "files.remove"
        )
        self.button("files.evict").click()
        self.dialog.get_by_role("button", name=self.word("files.look")).click()
        self.dialog.get_by_text(self.word("files.nothing-to-evict")).wait_for()
        yield "a dialog: files.evict"
        self.closed()

    def playground(self) -> Iterator[str]:
        self.shown(f"/playground?model={quote(ODD)}")
        self.main.get_by_label(self.word("playground.write")).fill(ODD)
        self.page.keyboard.press("Enter")
        self.main.get_by_text("tiny model served").wait_for()
        self.button("playground.send").wait_for()
        yield "/playground with an answer"
        yield from self.from_button("playground.code")
        for tab in ("embeddings", "rerank", "images", "speak", "write"):
            yield self.shown(f"/playground?tab={tab}")

    def usage(self) -> Iterator[str]:
        for by in ("", "user", "key", "operation", "day"):
            path = self.shown(f"/usage?by={by}")
            self.main.get_by_role("table").wait_for()
            yield path

    def users(self) -> Iterator[str]:
        yield self.shown("/access", ODD)
        yield from self.from_button("access.new-user")
        items = ("common.edit", "access.reset", "access.logins", "access.switch-off", "common.delete")
        yield from self.from_menu("access.actions", ODD, *items)

    def keys(self) -> Iterator[str]:
        yield self.shown("/access?tab=keys", ODD)
        self.button("access.new-key").click()
        self.unfold(self.dialog)
        yield "a dialog: access.new-key"
        self.dialog.get_by_label(self.word("access.name"), exact=True).fill(f"{ODD} {secrets.token_hex(4)}")
        self.dialog.get_by_role("button", name=self.word("access.make-key")).click()
        self.dialog.get_by_text(self.word("access.once")).wait_for()
        yield "a key of /access that is shown once"
        self.dialog.get_by_role("button", name=self.word("access.have-it")).click()
        yield from self.from_menu("access.actions", ODD, "common.edit", "common.delete")

    def sign_on(self) -> Iterator[str]:
        yield self.shown("/access?tab=sign-on")
        self.main.get_by_label(self.word("access.issuer")).fill("http://127.0.0.1:9/")
        self.button("access.try-do").click()
        self.main.locator(".sentence").wait_for()
        yield "/access with a provider that was tried"

    def events(self) -> Iterator[str]:
        yield self.shown("/events")
        self.main.locator(".event button").first.click()
        yield "a dialog: one of /events"
        self.closed()
        yield self.shown("/events?tab=audit")
        self.main.get_by_role("table").locator("button.as-link").first.click()
        yield "a dialog: one of the audit trail"
        self.closed()

    def account(self) -> Iterator[str]:
        yield self.shown("/account")
        for key in ("account.rename", "sign-in.change", "account.end-all"):
            yield from self.from_button(key)


def faults_of(page: Page, state: str) -> list[str]:
    found = [f"{state}: {json.dumps(one, ensure_ascii=False)}" for one in grave_violations(page)]
    found += [f"{state} is wider than the window: {one}" for one in sticks_out(page)]
    if page.locator("img").count() or page.title() == GOT_IT:
        found.append(f"{state}: a name became markup")
    return found


def choose(page: Page, theme: str, language: str) -> None:
    """As the buttons below the navigation do."""
    page.evaluate(
        "([theme, language]) => Object.assign(localStorage, { theme, language })", [theme, language]
    )


@pytest.fixture(scope="module")
def visitor(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Complaints]]:
    requires_axe()
    with running_browser(tmp_path_factory.mktemp("browser"), __name__, traced=False) as visit:
        page = visit("admin").page
        # Nothing is seen while it changes its colour.
        page.emulate_media(reduced_motion="reduce")
        complaints = Complaints.of(page)
        # No such hub is there.
        complaints.expect("503 .*proxy.url=.*modelscope")
        page.goto(world.server.url)
        sign_in(page, world.server)
        yield page, complaints


def test_nothing_on_any_page_is_a_grave_violation_and_names_are_text(
    world: World, visitor: tuple[Page, Complaints]
) -> None:
    page, complaints = visitor
    choose(page, "light", "en")
    page.goto(world.server.url)
    page.locator(".decisions").wait_for()
    faults = []
    for number, state in enumerate(Tour(page, world, Words("en"))):
        # The slow tests see each of them in both; in turn is enough to see what one of the two breaks.
        theme = ("light", "dark")[number % 2]
        page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        faults += faults_of(page, f"{state}, {theme}")
    assert faults == []
    complaints.check()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_same_in_both_themes_and_languages(
    world: World, visitor: tuple[Page, Complaints], theme: str, language: str, width: int
) -> None:
    page, complaints = visitor
    page.set_viewport_size({"width": width, "height": 900})
    choose(page, theme, language)
    page.goto(world.server.url)
    page.locator(".decisions").wait_for()
    faults, count = [], 0
    for state in Tour(page, world, Words(language)):
        faults += faults_of(page, state)
        count += 1
    print(f"{count} states of pages seen by axe: {theme}, {language}, {width} pixels")
    assert faults == []
    complaints.check()


def test_neither_is_on_the_pages_before_one_is_in(world: World, visitor: tuple[Page, Complaints]) -> None:
    page, complaints = visitor
    faults = []
    for theme, language in (("light", "en"), ("dark", "zh")):
        word = Words(language)
        page.context.clear_cookies()
        choose(page, theme, language)
        page.goto(f"{world.server.url}/sign-in")
        page.get_by_role("button", name=word("sign-in.submit")).wait_for()
        faults += faults_of(page, f"signing in, {theme}")
        sign_in(page, world.server, ODD)
        page.goto(world.server.url)
        page.get_by_role("heading", name=word("sign-in.must-change")).wait_for()
        faults += faults_of(page, f"choosing a password, {theme}")
    assert faults == []
    complaints.check()

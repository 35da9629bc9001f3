"""The web console: its shell at the addresses of pages alone, its files for ever, and nothing inline."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

import pytest

from gpustack.api.console_pages import PAGES
from gpustack.api.resource import all_routes
from gpustack.engines.registry import engines
from tests.needs import requires

from .world import World

CONSOLE = Path(__file__).parents[2] / "console"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SHELL = '<!doctype html><script type="module" src="/console/b1/core.js"></script>'


@pytest.fixture
def built(world: World, tmp_path: Path) -> World:
    """A server with a console of two files."""
    folder = tmp_path / "b1"
    folder.mkdir()
    (tmp_path / "index.html").write_text(SHELL)
    (folder / "core.js").write_text("start()")
    (folder / "core.js.gz").write_bytes(gzip.compress(b"start()"))
    (folder / "secret.txt").write_text("not for anybody")
    return world.rebuilt(console=tmp_path)


@pytest.mark.parametrize("path", ["/", "/models", "/models/12", "/instances/12/logs", "/sign-in"])
async def test_browsers_get_the_shell_at_the_address_of_a_page_and_programs_do_not(
    built: World, path: str
) -> None:
    answer = await built.ask("GET", path, headers=BROWSER)
    assert (answer.status_code, answer.text) == (200, SHELL)
    assert answer.headers["Cache-Control"] == "no-cache"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    plain = await built.ask("GET", path)
    assert plain.status_code == 404
    assert plain.json()["code"] == 404


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/nothing", "/model", "/nothing", "/console", "/console/b1", "/modelsx"]
)
async def test_no_other_address_is_a_page(built: World, path: str) -> None:
    answer = await built.ask("GET", path, headers=BROWSER)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("application/json")


def test_no_page_has_the_address_of_something_else() -> None:
    others = {route.path.split("/")[1] for route in all_routes() if route.tag != "console"}
    assert not others & set(PAGES)


async def test_files_are_kept_for_ever_and_come_compressed(built: World) -> None:
    answer = await built.ask("GET", "/console/b1/core.js", headers={"accept-encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.text == "start()"
    assert "immutable" in answer.headers["Cache-Control"]
    plain = await built.ask("GET", "/console/b1/core.js", headers={"accept-encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert plain.content == b"start()"


@pytest.mark.attack("traversal")
@pytest.mark.parametrize(
    "name",
    [
        "b1/secret.txt",
        "b1/core.js.gz",
        "b1/..%2findex.html",
        "..%2fb1/core.js",
        "b1/nothing.js",
        "b2/core.js",
    ],
)
async def test_no_other_file_is_served(built: World, name: str) -> None:
    async with built.client() as client:
        assert (await client.get(f"/console/{name}")).status_code == 404


async def test_without_a_console_there_is_the_small_page_and_a_sentence(world: World, tmp_path: Path) -> None:
    bare = world.rebuilt(console=tmp_path / "nothing")
    home = await bare.ask("GET", "/", headers=BROWSER)
    assert home.status_code == 200
    assert "used by programs" in home.text
    page = await bare.ask("GET", "/models", headers=BROWSER)
    assert page.status_code == 503
    assert "not part of this installation" in page.json()["message"]
    assert (await bare.ask("GET", "/console/b1/core.js")).status_code == 404


async def test_the_new_files_of_a_build_are_seen_without_a_restart(built: World, tmp_path: Path) -> None:
    assert (await built.ask("GET", "/console/b2/core.js")).status_code == 404
    (tmp_path / "b2").mkdir()
    (tmp_path / "b2" / "core.js").write_text("again()")
    assert (await built.ask("GET", "/console/b2/core.js")).text == "again()"


def test_the_console_and_the_server_know_the_same_pages() -> None:
    text = (CONSOLE / "src" / "paths.js").read_text()
    shown = {path.split("/")[1] for path in re.findall(r"path: '(/[^']*)'", text)} - {""}
    assert shown <= set(PAGES), shown - set(PAGES)


def test_the_form_of_a_model_suggests_every_engine() -> None:
    text = (CONSOLE / "src" / "pages" / "models" / "form.js").read_text()
    listed = re.search(r"^const ENGINES = \[(.*)\];$", text, re.MULTILINE)
    assert listed is not None
    assert set(re.findall(r"'([^']+)'", listed[1])) == {engine.wire_name for engine in engines()}


@pytest.mark.attack("cross-site")
def test_the_shell_has_nothing_inline_and_loads_nothing_from_elsewhere() -> None:
    text = (CONSOLE / "src" / "index.html").read_text()
    assert not re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", text)
    assert not re.findall(r"<style|\sstyle=|\son\w+=", text)
    assert not re.findall(r"(?:src|href)=\"(?:\w+:)?//", text)


@pytest.mark.attack("cross-site")
def test_no_part_of_the_console_takes_text_for_markup() -> None:
    for path in (CONSOLE / "src").rglob("*.js"):
        text = path.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function",
            text,
            re.IGNORECASE,
        ), path


def test_every_language_has_every_word() -> None:
    node = requires("node")
    done = subprocess.run(
        [node, "check.js"], cwd=CONSOLE, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr

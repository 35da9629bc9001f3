"""The guide is shown by the daemon, or the way to build it, and no other file is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpustack.api.resources import guide

from .world import World

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A guide of one page, as docs/guide/build.py would make it."""
    out = tmp_path / "guide"
    out.mkdir()
    frame = ROOT / "docs" / "guide" / "theme" / "page.html"
    (out / "index.html").write_text(frame.read_text().replace("{{version}}", "1"))
    for name in ("guide.css", "guide.js"):
        (out / name).write_bytes((frame.parent / name).read_bytes())
    (out / "search-en.json").write_text("[]")
    (out / "gpustack.env").write_text("# options\n")
    return out


@pytest.fixture
def served(built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The daemon of the test shows what was just built, whatever the checkout has."""
    monkeypatch.setattr(guide, "GUIDE", built)
    guide._files.cache_clear()
    yield
    guide._files.cache_clear()


async def test_the_daemon_shows_it(world: World, served: None) -> None:
    first = await world.ask("GET", "/guide/")
    assert first.status_code == 200
    assert first.headers["Content-Type"] == "text/html; charset=utf-8"
    assert first.headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert first.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    for name in re.findall(r'(?:src|<link rel="stylesheet" href)="([^"]+)"', first.text):
        answer = await world.ask("GET", f"/guide/{name}")
        assert answer.status_code == 200
        assert "max-age" in answer.headers["Cache-Control"]
    assert (await world.ask("GET", "/guide/search-en.json")).headers["Content-Type"] == "application/json"
    assert (await world.ask("GET", "/guide/gpustack.env")).headers["Content-Type"].startswith("text/plain")
    for encoding in ("gzip", "identity"):
        packed = await world.ask("GET", "/guide/", headers={"Accept-Encoding": encoding})
        assert packed.headers.get("Content-Encoding", "identity") == encoding
        assert packed.text == first.text
    moved = await world.ask("GET", "/guide")
    assert (moved.status_code, moved.headers["Location"]) == (308, "/guide/")


async def test_where_it_was_not_built_one_sentence_says_how(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guide, "GUIDE", tmp_path / "not-built")
    guide._files.cache_clear()
    answer = await world.ask("GET", "/guide/")
    guide._files.cache_clear()
    assert answer.status_code == 503
    assert "'make guide' builds it" in answer.json()["message"]


@pytest.mark.attack("traversal")
@pytest.mark.parametrize(
    "name", ["../guide.py", "..%2fresources%2fguide.py", "%2e%2e/app.py", "nothing.html", "%00"]
)
async def test_no_other_file_is_served(world: World, served: None, name: str) -> None:
    async with world.client() as client:
        answer = await client.get(f"/guide/{name}")
    assert answer.status_code == 404

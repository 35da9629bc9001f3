"""The guide is built of its sources, leads nowhere that is not there, and loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs.guide.build import Broken, build, slug
from gpustack.config.option import table
from gpustack.config.options import Options
from tests.guide import chinese_options
from tests.guide.blocks import pages


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("guide") / "out"
    build(out)
    return out


def test_every_link_of_every_page_leads_to_a_file_and_an_anchor(built: Path) -> None:
    """``build`` refuses what leads nowhere; here its result is looked at, menu and all."""
    pages = {path.name: path.read_text() for path in built.glob("*.html")}
    ids = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in pages.items()}
    lost = []
    for name, text in pages.items():
        for link in re.findall(r'\bhref="([^"]+)"', text):
            path, _, anchor = link.partition("#")
            if re.match(r"https?:|data:|/", link):
                continue
            target = path.split("?")[0] or name
            if not (built / target).is_file() or (anchor and anchor not in ids[target]):
                lost.append(f"{name}: {link}")
    assert len(pages) > 20
    assert not lost, "\n".join(lost)


def test_every_document_for_users_is_in_the_menu() -> None:
    """What is for those who change the code stays out: proofs, tables that tests are held to."""
    root = Path(__file__).resolve().parents[2]
    shown = set(pages())
    inside = {root / "docs" / f"{name}.md" for name in ("attacks", "estimates", "deviations")}
    there = {*root.glob("docs/*.md"), *root.glob("docs/guide/**/*.md")} - inside
    assert not sorted(str(path.relative_to(root)) for path in there - shown)


def test_pages_hold_no_script_or_style_of_their_own_and_load_nothing_from_elsewhere(built: Path) -> None:
    for path in built.glob("*.html"):
        text = path.read_text()
        assert not re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle=|\son\w+=", text), path.name
        assert not re.findall(r'(?:src|<link[^>]* href)="(?:\w+:)?//', text), path.name
    for name in ("guide.css", "guide.js"):
        assert not re.findall(r"https?://|@import|url\(", (built / name).read_text()), name
    assert sum(path.stat().st_size for path in built.iterdir()) < 4_000_000


def test_what_is_searched_has_every_page(built: Path) -> None:
    pages = {path.stem for path in built.glob("*.html")}
    chinese = {page for page in pages if page.startswith("zh-")}
    found = {}
    for language, expected in (("en", pages - chinese), ("zh", chinese)):
        entries = json.loads((built / f"search-{language}.json").read_text())["pages"]
        assert {entry[0] for entry in entries} == expected
        assert any(entry[0].endswith("options") and "--data-dir" in entry[4] for entry in entries)
        found[language] = " ".join(" ".join(entry[2:]) for entry in entries).lower()
    for language in found:
        words = json.loads((built / f"search-{language}.json").read_text())["words"]
        absent = [each for meant in words.values() for each in meant if each not in found["en"]]
        assert not absent, f"words that no page has: {absent}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# A\n\n[b](nothing.md)\n", "nothing at nothing.md"),
        ("# A\n\n[b](#nowhere)\n", "no heading #nowhere"),
        ("# A\n\n<b>x</b>\n", "raw HTML"),
        ("# A\n\nin <data-dir>\n", "an angle bracket that is none"),
        ("no title\n", "has no title"),
    ],
)
def test_a_page_with_a_fault_is_not_built(tmp_path: Path, text: str, told: str) -> None:
    folder = tmp_path / "docs" / "guide"
    folder.mkdir(parents=True)
    (folder / "a.md").write_text(text)
    (folder / "site.toml").write_text(
        'files = []\n[[section]]\nen = "A"\nzh = "A"\n[section.pages]\n"docs/guide/a.md" = ""\n'
    )
    theme = Path(__file__).resolve().parents[2] / "docs" / "guide" / "theme"
    (folder / "theme").symlink_to(theme)
    with pytest.raises(Broken, match=re.escape(told)):
        build(tmp_path / "out", tmp_path)


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Where is …", "where-is-"),
        ("`gpustack run`: a model", "gpustack-run-a-model"),
        ("安装 (pip)", "安装-pip"),
    ],
)
def test_anchors_are_those_of_github(heading: str, anchor: str) -> None:
    assert slug(heading.replace("`", "")) == anchor


def test_the_chinese_page_has_every_option() -> None:
    options = {option.name for option in table(Options)}
    assert set(chinese_options.words()) == options, "docs/guide/zh/options.toml has a line for each option"
    page = (chinese_options.FOLDER / "options.md").read_text()
    assert page == chinese_options.document(), "run: make docs"

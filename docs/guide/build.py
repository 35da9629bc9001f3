"""Makes the guide: the Markdown that `site.toml` names becomes pages that need no network.

    python docs/guide/build.py [FOLDER]

FOLDER is gpustack/api/guide if not given, from where the daemon serves /guide/. A link or anchor that leads
nowhere, raw HTML and a page without a title are faults; all are told at once. Needs `markdown-it-py` alone.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "gpustack" / "api" / "guide"
ASSETS = ("guide.css", "guide.js")
LANGUAGES = ("en", "zh")
WORDS = {
    "en": {
        "lang": "en",
        "guide": "Guide",
        "menu": "Pages",
        "search": "Search the guide",
        "none": "Nothing found",
        "here": "On this page",
        "theme": "Light or dark",
        "before": "Before",
        "next": "Next",
        "skip": "To the text",
        "copy": "Copy",
        "copied": "Copied",
        "other": "中文",
    },
    "zh": {
        "lang": "zh-CN",
        "guide": "指南",
        "menu": "页面",
        "search": "搜索指南",
        "none": "没有找到",
        "here": "本页内容",
        "theme": "浅色或深色",
        "before": "上一页",
        "next": "下一页",
        "skip": "跳到正文",
        "copy": "复制",
        "copied": "已复制",
        "other": "English",
    },
}


class Broken(Exception):
    """The guide cannot be built; the text has every fault, a line each."""


@dataclass
class Page:
    """One page, as it is read before any other page is known."""

    source: Path
    name: str
    label: str
    language: str
    tokens: list[Token]
    title: str
    anchors: dict[str, str] = field(default_factory=dict)
    """The anchor of every heading, with its text."""


@dataclass(frozen=True)
class Section:
    """Pages that belong together, under one heading of the menu."""

    titles: Mapping[str, str]
    pages: tuple[Page, ...]


@dataclass(frozen=True)
class Site:
    """All pages in their order, those of other languages beside them, and files that are given along."""

    sections: tuple[Section, ...]
    translated: Mapping[str, Page]
    """The Chinese page of an English one, by its name."""
    files: tuple[Path, ...]
    words: Mapping[str, Mapping[str, Sequence[str]]]
    """By language: words that readers search for, and those that the pages have for them."""

    def pages(self) -> Iterator[Page]:
        for section in self.sections:
            yield from section.pages
        yield from self.translated.values()


def parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable("table")


def slug(text: str) -> str:
    """The anchor of a heading, as GitHub makes it, so that a link holds here and there."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def plain(token: Token) -> str:
    """The words of an inline token, without their marks."""
    return "".join(
        " " if child.type in ("softbreak", "hardbreak") else child.content
        for child in token.children or ()
        if child.type in ("text", "code_inline", "softbreak", "hardbreak")
    )


def read_site(root: Path = ROOT) -> Site:
    """The pages as their sources stand. Raises Broken."""
    told = tomllib.loads((root / "docs" / "guide" / "site.toml").read_text(encoding="utf-8"))
    sections, translated, faults = [], {}, []
    for section in told["section"]:
        pages = []
        for path, label in section["pages"].items():
            source = root / path
            if not source.is_file():
                faults.append(f"site.toml names {path}, which is not there")
                continue
            page = _read(source, _name(source), label, "en")
            pages.append(page)
            chinese = root / "docs" / "guide" / "zh" / source.name
            if chinese.is_file():
                translated[page.name] = _read(chinese, f"zh-{page.name}", "", "zh")
        sections.append(Section({"en": section["en"], "zh": section["zh"]}, tuple(pages)))
    files = tuple(root / path for path in told["files"])
    faults += [
        f"site.toml names {path.relative_to(root)}, which is not there"
        for path in files
        if not path.is_file()
    ]
    site = Site(tuple(sections), translated, files, told.get("search", {}))
    names = [page.name for page in site.pages()]
    faults += [
        f"two pages are named {name}.html" for name in {name for name in names if names.count(name) > 1}
    ]
    faults += [f"{page.source.relative_to(root)} has no title" for page in site.pages() if not page.title]
    if faults:
        raise Broken("\n".join(faults))
    return site


def _name(source: Path) -> str:
    return (source.parent.name if source.stem == "README" else source.stem).lower()


def _read(source: Path, name: str, label: str, language: str) -> Page:
    tokens = _for_readers(parser().parse(source.read_text(encoding="utf-8")))
    page = Page(source, name, label, language, tokens, "")
    for token, inside in pairwise(tokens):
        if token.type != "heading_open":
            continue
        text = plain(inside)
        if token.tag == "h1" and not page.title:
            page.title = text
            continue
        anchor = base = slug(text)
        number = 0
        while anchor in page.anchors:
            number += 1
            anchor = f"{base}-{number}"
        page.anchors[anchor] = text
        token.attrSet("id", anchor)
    page.label = label or page.title
    return page


_OF_TESTS = "Shown by"
"""The column of generated tables that names tests: for those who have the checkout."""
_TOLD_OF_IT = "Each row names the test"


def _for_readers(tokens: list[Token]) -> list[Token]:
    """Without what speaks to those who change the code: the column that names tests, and the paragraph about it."""
    kept: list[Token] = []
    column, dropped = 0, -1
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            dropped = -1
        if token.type == "tr_open":
            column = 0
        if token.type == "inline" and tokens[place - 1].type == "th_open" and token.content == _OF_TESTS:
            dropped = column
        if column != dropped or token.type not in ("th_open", "td_open", "inline", "th_close", "td_close"):
            kept.append(token)
        elif token.type == "inline" and kept[-1].type == "th_open":
            kept.pop()
        if token.type in ("th_close", "td_close"):
            column += 1
    for place, token in enumerate(kept):
        if token.type == "inline" and token.content.startswith(_TOLD_OF_IT):
            return [*kept[: place - 1], *kept[place + 2 :]]
    return kept


class _Renderer(RendererHTML):
    """Renders one page; what is wrong in it is added to ``faults``."""

    def __init__(self, site: Site, page: Page, root: Path, faults: list[str]) -> None:
        super().__init__()
        self._site, self._page, self._root, self._faults = site, page, root, faults
        self._by_source = {each.source.resolve(): each for each in site.pages()}

    def fault(self, text: str) -> None:
        self._faults.append(f"{self._page.source.relative_to(self._root)}: {text}")

    def html_block(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        text = tokens[index].content.strip()
        if not (text.startswith("<!--") and text.endswith("-->")):
            self.fault(f"raw HTML: {text[:60]}")
        return ""

    def html_inline(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        self.fault(f"raw HTML, or an angle bracket that is none: {tokens[index].content[:60]}")
        return ""

    def fence(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        language = (tokens[index].info.split() or ["text"])[0]
        return _code(tokens[index].content, language)

    def code_block(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return _code(tokens[index].content, "text")

    def heading_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        anchor = tokens[index].attrGet("id")
        return f'<{tokens[index].tag} id="{anchor}">' if anchor else f"<{tokens[index].tag}>"

    def heading_close(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        anchor = tokens[index - 2].attrGet("id")
        link = f'<a class="anchor" href="#{anchor}" aria-hidden="true" tabindex="-1">#</a>' if anchor else ""
        return f"{link}</{tokens[index].tag}>\n"

    def table_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        columns = 0
        for token in tokens[index:]:
            columns += token.type == "th_open"
            if token.type == "thead_close":
                break
        wide = " wide" if columns > 3 else ""
        focus = ' tabindex="0"' if wide else ""  # it may have to be scrolled
        return f'<div class="table{wide}"{focus}><table>\n'

    def table_close(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return "</table></div>\n"

    def th_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return _cell(tokens[index])

    td_open = th_open

    def softbreak(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return "" if self._page.language == "zh" else "\n"

    def code_inline(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        # Long names may be broken where a reader would: in tables there is little room.
        text = re.sub(r"(?<=\w[_/])(?=\w)", "<wbr>", html.escape(tokens[index].content, quote=False))
        whole = re.fullmatch(r"[^\s/]{1,32}", tokens[index].content)
        return f'<code class="whole">{text}</code>' if whole else f"<code>{text}</code>"

    def image(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        self.fault("pictures are not built yet: draw with characters")
        return ""

    def link_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        href = str(tokens[index].attrGet("href") or "")
        if re.match(r"https?://|mailto:", href):
            return f'<a class="out" rel="noopener noreferrer" href="{html.escape(href)}">'
        if href.startswith("/"):
            return f'<a href="{html.escape(href)}">'
        target = self._target(href)
        return "<a>" if target is None else f'<a href="{html.escape(target)}">'

    def _target(self, href: str) -> str | None:
        """Where a link to a file of the checkout leads here; None where that is not part of the guide."""
        path, _, anchor = unquote(href).partition("#")
        if not path:
            if anchor not in self._page.anchors:
                self.fault(f"no heading #{anchor}")
            return f"#{anchor}"
        source = (self._page.source.parent / path).resolve()
        if source in self._by_source:
            found = self._by_source[source]
            if anchor and anchor not in found.anchors:
                self.fault(f"no heading #{anchor} in {path}")
            if self._page.language == "zh" and found.language == "en" and not anchor:
                found = self._site.translated.get(found.name, found)
            return f"{found.name}.html" + (f"#{anchor}" if anchor else "")
        if source in {file.resolve() for file in self._site.files}:
            return source.name
        if not source.exists():
            self.fault(f"nothing at {path}")
        return None


def _cell(token: Token) -> str:
    align = re.search(r"right|center", str(token.attrGet("style") or ""))
    return f'<{token.tag} class="{align.group()}">' if align else f"<{token.tag}>"


_COMMENT = re.compile(r"(^|\s)(#.*)$", re.MULTILINE)


def _code(content: str, language: str) -> str:
    text = html.escape(content, quote=False)
    if language in ("sh", "bash", "yaml", "toml", "ini"):
        text = _COMMENT.sub(r'\1<span class="comment">\2</span>', text)
    name = html.escape(language)
    return f'<div class="code {name}"><pre tabindex="0"><code>{text}</code></pre></div>\n'


def build(out: Path = OUT, root: Path = ROOT) -> int:
    """Write the guide into ``out``, which is emptied first, and tell how many bytes that are. Raises Broken."""
    site = read_site(root)
    faults: list[str] = []
    theme = root / "docs" / "guide" / "theme"
    digest = hashlib.sha256(b"".join((theme / name).read_bytes() for name in ASSETS)).hexdigest()[:12]
    frame = (theme / "page.html").read_text(encoding="utf-8")
    made = {
        f"{page.name}.html": _page(site, page, frame, digest, root, faults).encode() for page in site.pages()
    }
    if faults:
        raise Broken("\n".join(faults))
    for language in LANGUAGES:
        found = {"words": site.words.get(language, {}), "pages": _search(site, language)}
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        made[f"search-{language}.json"] = text.encode()
    made |= {name: (theme / name).read_bytes() for name in ASSETS}
    made |= {file.name: file.read_bytes() for file in site.files}
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, content in made.items():
        (out / name).write_bytes(content)
    return sum(map(len, made.values()))


def _page(site: Site, page: Page, frame: str, digest: str, root: Path, faults: list[str]) -> str:
    markdown = parser()
    body = _Renderer(site, page, root, faults).render(page.tokens, markdown.options, {})
    words = WORDS[page.language]
    order = [
        site.translated.get(p.name, p) if page.language == "zh" else p for s in site.sections for p in s.pages
    ]
    place = order.index(page)
    filled = {
        **{f"word_{name}": html.escape(text) for name, text in words.items()},
        "version": digest,
        "title": html.escape(page.title),
        "home": "zh-index.html" if page.language == "zh" else "index.html",
        # What is not translated is found in English.
        "search": " ".join(f"search-{one}.json" for one in dict.fromkeys((page.language, "en"))),
        "menu": _menu(site, page),
        "other": _other(site, page),
        "contents": _contents(page, words["here"]),
        "body": body,
        "turn": _turn(words, order[place - 1] if place else None, (order[place + 1 :] or [None])[0]),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], frame)


def _menu(site: Site, page: Page) -> str:
    lines = []
    for section in site.sections:
        lines.append(f"<h2>{html.escape(section.titles[page.language])}</h2><ul>")
        for each in section.pages:
            shown = site.translated.get(each.name, each) if page.language == "zh" else each
            current = ' aria-current="page"' if shown is page else ""
            foreign = ' lang="en" hreflang="en"' if page.language != shown.language else ""
            lines.append(
                f'<li><a href="{shown.name}.html"{current}{foreign}>{html.escape(shown.label)}</a></li>'
            )
        lines.append("</ul>")
    return "\n".join(lines)


def _other(site: Site, page: Page) -> str:
    """A link to this page in the other language, if there is one."""
    if page.language == "zh":
        name, language = page.name.removeprefix("zh-"), "en"
    else:
        found = site.translated.get(page.name)
        name, language = found.name if found else "zh-index", "zh-CN"
    label = html.escape(WORDS[page.language]["other"])
    return f'<a class="other" href="{name}.html" lang="{language}" hreflang="{language}">{label}</a>'


def _contents(page: Page, title: str) -> str:
    level = {token.attrGet("id"): token.tag for token in page.tokens if token.type == "heading_open"}
    shown = [
        (anchor, text, level[anchor])
        for anchor, text in page.anchors.items()
        if level[anchor] in ("h2", "h3")
    ]
    if len(shown) < 2:
        return ""
    lines = "".join(
        f'<li class="{tag}"><a href="#{anchor}">{html.escape(text)}</a></li>' for anchor, text, tag in shown
    )
    return f'<nav class="here" aria-label="{title}"><h2>{title}</h2><ul>{lines}</ul></nav>'


def _turn(words: Mapping[str, str], before: Page | None, after: Page | None) -> str:
    made = [
        f'<a class="{kind}" href="{page.name}.html"><small>{words[kind]}</small>{html.escape(page.label)}</a>'
        for kind, page in (("before", before), ("next", after))
        if page is not None
    ]
    return "".join(made)


def _search(site: Site, language: str) -> list[list[str]]:
    """What can be found in a language: page, anchor, title of the page, heading, and the text below it."""
    found: list[list[str]] = []
    for section in site.sections:
        for each in section.pages:
            page = each if language == "en" else site.translated.get(each.name)
            if page is None:
                continue
            found.append([page.name, "", page.title, "", ""])
            for before, token in pairwise(page.tokens):
                if before.type == "heading_open" and before.attrGet("id"):
                    anchor = str(before.attrGet("id"))
                    found.append([page.name, anchor, page.title, page.anchors[anchor], ""])
                elif token.type == "inline" and before.tag != "h1":
                    found[-1][4] += f"{plain(token)} "
                elif token.type == "fence" and token.info.split()[:1] in (["sh"], ["bash"], ["yaml"]):
                    found[-1][4] += f"{token.content} "
    return [[*entry[:4], " ".join(entry[4].split())] for entry in found]


def main() -> int:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    try:
        size = build(out)
    except Broken as broken:
        print(broken, file=sys.stderr)
        return 1
    print(f"{out}: {sum(1 for _ in out.iterdir())} files, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

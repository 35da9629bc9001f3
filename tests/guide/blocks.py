"""The command blocks of the guide, each with what a test does with it.

The words behind a block's language say that: ``run``: in every run of the tests; ``slow``: by `make test-guide` alone;
``skip: REASON``: never here. ``text shown`` below a block is what it prints, with … for anything. Readers see none of
these words.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import attrs

from docs.guide.build import ROOT, parser

COMMANDS = ("sh", "bash", "console", "python", "js")
SETTINGS = ("yaml", "json", "text", "nginx", "dockerfile", "ini")
"""Languages of blocks that nobody runs."""


@attrs.frozen
class Block:
    """One fenced block of a page. ``line`` is where it begins."""

    page: Path
    line: int
    language: str
    marker: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.marker == "run"

    @property
    def is_slow(self) -> bool:
        return self.marker == "slow"

    @property
    def is_shown(self) -> bool:
        """Whether it is what the block before it prints."""
        return self.language == "text" and self.marker == "shown"

    def is_printed(self, said: str) -> bool:
        """Whether what it shows is in what was printed; … is anything, and any white space is one blank."""
        wanted = " ".join(self.text.split())
        pattern = ".*?".join(re.escape(part) for part in wanted.split("…"))
        return re.search(pattern, " ".join(said.split())) is not None

    @property
    def reason(self) -> str | None:
        """Why it is not run; ``None`` where it is."""
        return self.marker.removeprefix("skip:").strip() if self.marker.startswith("skip:") else None

    def fault(self) -> str | None:
        """What is wrong with its language or marker."""
        if self.is_shown:
            return None
        if self.language in SETTINGS:
            return f"{self.language} is not run, and has no marker" if self.marker else None
        if self.language not in COMMANDS:
            kind = "commands" if re.search(r"^(\$ |gpustack |curl )", self.text, re.MULTILINE) else None
            return f"a block of {kind} says its language, and what a test does with it" if kind else None
        if self.is_run or self.is_slow or len((self.reason or "").split()) >= 3:
            return None
        return "a command block says run, slow, or skip: and the reason in some words"

    def command_lines(self) -> Iterator[list[str]]:
        """Every call of gpustack in it, as words; what a shell would put in stands as ``x``."""
        if self.language not in ("sh", "bash", "console"):
            return
        text = self.text.replace("\\\n", " ")
        inner = re.findall(r"\$\((gpustack [^()]*)\)", text)
        text = re.sub(r"\$\([^()]*\)|\$\{?\w+\}?", "x", text)
        for line in [*text.splitlines(), *inner]:
            called = re.search(
                r"(?:^|[;&|] *|exec gpustack )(?:\w+=\S* )*(?:\S+/bin/)?gpustack ([a-z-].*)",
                line.removeprefix("$ "),
            )
            if not called:
                continue
            words = shlex.split(called[1], comments=True)
            ends = [
                place for place, word in enumerate(words) if word in ("|", "||", ";", "&&", ">", "2>", "<")
            ]
            yield words[: ends[0]] if ends else words


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page in their order."""
    made = []
    for token in parser().parse(page.read_text(encoding="utf-8")):
        if token.type == "fence":
            language, _, marker = token.info.strip().partition(" ")
            line = (token.map or [0])[0] + 1
            made.append(Block(page, line, language, marker.strip(), token.content))
    return made


def pages() -> list[Path]:
    """The sources of all pages, and the README; none of them is read."""
    told = tomllib.loads((ROOT / "docs" / "guide" / "site.toml").read_text(encoding="utf-8"))
    named = [ROOT / path for section in told["section"] for path in section["pages"]]
    return [*named, *sorted((ROOT / "docs" / "guide" / "zh").glob("*.md")), ROOT / "README.md"]

"""Nothing tells people to type what is not there: help, documents, messages and alerts name commands that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpustack.cli.main import names
from gpustack.cli.vocabulary import text_of, vocabulary
from tests.child import ROOT

EVERY = {one.command: one for one in vocabulary()}
GENERATED = {"start", "config"}

PROSE = frozenset(
    {"contrib", "that", "reads", "has", "needs", "on", "in", "or", "and", "is", "to", "write", "gpustack"}
)
"""What goes on after the name of the program, or of its user, where it is no command line."""
_NAMED = re.compile(r"(?<![\w/.\-@:=~])gpustack ([a-z][a-z-]*)((?: [^\n.;,\"'`|&>)]+)?)")
_PAGES = sorted(
    page
    for place in (
        "README.md",
        "SECURITY.md",
        "docs/*.md",
        "contrib/**/*.md",
        "gpustack/**/*.md",
        "contrib/**/*.yml",
    )
    for page in ROOT.glob(place)
    if page.name != "cli.md" and "issue" not in str(page.parent)
)


def strings(file: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module, with a mark for each value that is put into them."""
    tree = ast.parse(file.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "NAME"
                for part in node.values
            )
            yield node.lineno, "".join(parts)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands that a text names, with what stands behind each."""
    for found in _NAMED.finditer(text):
        if found[1] not in PROSE:
            yield found[1], found[2]


def faults(text: str) -> list[str]:
    """What a text tells to type that is not there."""
    wrong = []
    for name, rest in commands(text):
        if name not in EVERY:
            wrong.append(f"gpustack {name}")
            continue
        known = {option.name for option in EVERY[name].options} | {
            option.short for option in EVERY[name].options if option.short
        }
        before_start_options = re.split(r" -- | -- ?$", rest)[0]
        wrong += [
            f"gpustack {name} {option}"
            for option in re.findall(r"(?<=\s)--?[a-zA-Z][\w-]*", before_start_options)
            if option not in known
        ]
    return wrong


def test_the_test_sees_what_is_not_there() -> None:
    assert faults("see gpustack journal NAME, or gpustack logs --all x") == [
        "gpustack journal",
        "gpustack logs --all",
    ]
    assert not faults("gpustack logs -f NAME; gpustack run -d m -- --all; data of /var/lib/gpustack in use")


@pytest.mark.parametrize(
    "file", sorted((ROOT / "gpustack").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT))
)
def test_messages_name_commands_that_are_there(file: Path) -> None:
    wrong = {line: found for line, text in strings(file) if (found := faults(text))}
    assert not wrong


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documents_and_alerts_name_commands_that_are_there(page: Path) -> None:
    assert not faults(page.read_text())


def test_the_readme_offers_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    table = text.split("## What you can do with it")[1].split("\n## ")[0]
    told = {word for code in re.findall(r"`([^`]+)`", table) for word in code.split()}
    assert {*names()} <= told


SOURCES = "\n".join(file.read_text() for file in sorted((ROOT / "gpustack/cli").rglob("*.py")))


@pytest.mark.parametrize("name", sorted({*names()} - GENERATED))
def test_every_option_of_a_usage_text_is_read_by_the_program(name: str) -> None:
    own = (ROOT / f"gpustack/cli/commands/{name.replace('-', '_')}.py").read_text()
    for option in EVERY[name].options:
        if option.name != "--help":
            by_name = "--{name}" in own and f'"{option.name[2:]}"' in own  # several options read in one loop
            assert f'"{option.name}"' in SOURCES or by_name, option.name


@pytest.mark.parametrize("name", sorted({*names()} - GENERATED))
def test_every_verb_of_a_usage_text_is_read_by_the_program(name: str) -> None:
    verbs = [verb for step in EVERY[name].steps for verb in step.verbs]
    for verb in verbs[1 if name in ("db", "debug") else 0 :]:  # no program asks for the only one
        assert f'"{verb}"' in SOURCES, verb


def test_the_exit_codes_are_those_of_the_table() -> None:
    from gpustack.cli import failure

    table = (ROOT / "docs/cli.md").read_text().split("| Exit code |")[1].split("\n\n")[0]
    told = {int(code) for code in re.findall(r"^\| `(\d+)`", table, re.MULTILINE)}
    assert told == {0, failure.FAILED, failure.MISUSED, failure.TIMED_OUT, failure.INTERRUPTED}


def test_usage_texts_name_commands_that_are_there() -> None:
    for name in names():
        assert not faults(text_of(name)), name

"""What the READMEs of the packages and docs/architecture.md say of files and names is there."""

from __future__ import annotations

import ast
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from gpustack.domain.taint import TaintEffect

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ROOT / "gpustack"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [ARCHITECTURE, *sorted(PRODUCT.glob("*/README.md"))]
WITH_A_PICTURE = {"api", "cli", "gateway", "http1", "nursery", "policy", "server", "store", "worker"}

# `store/writer.py`, `writer.py:Writer.commit`, also without backticks in a drawing
NAMED = re.compile(r"(?<![\w./*-])((?:\w+/)*\w+\.py)(?::(\w+(?:\.\w+)?))?(?!\w)")
FOLDER = re.compile(r"`((?:\w+/){2,})`")


def places(page: Path, name: str) -> list[Path]:
    """Where a page may mean: in its own package, in ``gpustack/``, in the checkout."""
    return [path for path in (page.parent / name, PRODUCT / name, ROOT / name) if path.exists()]


@cache
def defined(path: Path) -> frozenset[str]:
    """Classes, functions, constants, ``Class.member`` of a module."""
    return frozenset(_names(ast.parse(path.read_text()).body))


def _names(body: list[ast.stmt], outer: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield outer + node.name
            if isinstance(node, ast.ClassDef) and not outer:
                yield from _names(node.body, f"{node.name}.")
        elif isinstance(node, ast.Assign):
            yield from (outer + target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield outer + node.target.id


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_files_and_definitions_that_are_there(page: Path) -> None:
    text = page.read_text()
    faults = [name for name in FOLDER.findall(text) if not places(page, name)]
    for name, what in NAMED.findall(text):
        if Path(name).stem.isupper():  # a place for a name, in "to add …"
            continue
        found = places(page, name)
        if not found:
            faults.append(name)
        elif what and not any(what in defined(path) for path in found):
            faults.append(f"{name}:{what}")
    assert not faults, f"{page.relative_to(ROOT)} names what is not there: {', '.join(faults)}"


def test_every_package_where_loops_meet_has_its_picture() -> None:
    drawn = {page.parent.name for page in PAGES if re.search("[─│►▼]", page.read_text())}
    assert drawn >= WITH_A_PICTURE


def test_a_public_class_name_stands_once() -> None:
    """One word has one meaning; two worlds that share a word qualify it: ``ServerLimits``, ``PoolLimits``."""
    found = defaultdict(list)
    for path in sorted(PRODUCT.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    doubles = [f"{name}: {' and '.join(paths)}" for name, paths in found.items() if len(paths) > 1]
    assert not doubles, "\n".join(doubles)


MEANT = re.compile(r"``(_?[A-Z][a-z]\w*[A-Z]?\w*)(?=[.(\[`])")


def test_docstrings_and_comments_name_classes_that_are_there() -> None:
    """A name of two humps in double backquotes is a class, ours or one that the code uses: one that went is told."""
    used: set[str] = set()
    named: dict[str, str] = {}
    for path in sorted(PRODUCT.rglob("*.py")):
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.NAME:
                    used.add(token.string)
                elif token.type in (tokenize.STRING, tokenize.COMMENT):
                    for name in MEANT.findall(token.string):
                        named.setdefault(name, f"{path.relative_to(ROOT)}:{token.start[0]}")
    # Of XML signatures, of systemd, and effects of taints.
    of_others = {"SignedInfo", "TimeoutStopSec", *TaintEffect}
    lost = {
        name: where
        for name, where in named.items()
        if name not in used and name not in of_others and sum(map(str.isupper, name)) > 1
    }
    assert not lost, lost


def test_an_object_shows_itself_by_the_name_of_its_class() -> None:
    faults = []
    for path in sorted(PRODUCT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            for part in ast.walk(
                next((f for f in node.body if getattr(f, "name", "") == "__repr__"), ast.Pass())
            ):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    shown = re.match(r"<([A-Z]\w+)", part.value)
                    if shown and shown[1] != node.name:
                        faults.append(f"{path.relative_to(ROOT)}: {node.name} shows itself as {shown[1]}")
    assert not faults, "\n".join(faults)


def test_the_tables_of_an_issue_name_tests_that_are_there() -> None:
    lost = {
        f"{page.name}: {name}"
        for page in (ROOT / "docs").glob("issue-*/*.md")
        for name in re.findall(r"(?<![\w/])(tests/(?:\w+/)*\w+\.py)", page.read_text())
        if not (ROOT / name).exists()
    }
    assert not lost, "\n".join(sorted(lost))

"""Documents of `docs/` that have to keep up with the code: their tables read back, and written anew.

python -m tests.documents lifecycle > docs/lifecycle.md
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"

LIFECYCLE = """\
# The life of a model instance

<!-- Written by `python -m tests.documents lifecycle`. Change gpustack/domain/lifecycle.py, then run it again. -->

An instance is one replica of a model. These are the only moves between its states, who may make them, and when;
every write is checked against this table, and a move that is not in it is refused with `Conflict`.

| From | To | By | When |
| --- | --- | --- | --- |
"""


def rows(document: str) -> set[tuple[str, ...]]:
    """Every row of every table of a document, its cells without code marks; heads and rules left out."""
    found = set()
    lines = (DOCS / document).read_text().splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        is_rule, is_head = re.match(r"\|[\s:|-]+$", line), re.match(r"\|[\s:|-]+$", following)
        if line.startswith("|") and not is_rule and not is_head:
            found.add(tuple(cell.strip().strip("`") for cell in line.strip().strip("|").split(" | ")))
    return found


def words(document: str) -> set[str]:
    """Everything a document sets as code."""
    return set(re.findall(r"`([^`\n]+)`", (DOCS / document).read_text()))


def lifecycle() -> str:
    """The text of docs/lifecycle.md."""
    from gpustack.domain.lifecycle import TRANSITIONS

    moves = [(t.source.value, t.target.value, t.by.value, t.when) for t in TRANSITIONS]
    return LIFECYCLE + _table(moves)


def _table(cells: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.documents", description=__doc__)
    parser.add_argument("document", choices=["lifecycle"])
    parser.parse_args()
    print(lifecycle(), end="")


if __name__ == "__main__":
    main()

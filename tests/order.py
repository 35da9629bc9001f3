"""The order of the files of tests.

Those of `e2e/` mostly wait for daemons and clocks, the others mostly compute: spread among them, they cost little time
of their own where several processes share the files (`make test`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest

LONGEST = ("e2e/test_databases.py", "e2e/test_faulty_rows.py", "e2e/test_handover.py", "cli/test_commands.py")
"""First of all: what begins last should not be what takes longest."""
_HERE = Path(__file__).parent


def spread(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The same tests: the longest files, then all others with those of ``e2e/`` at equal distances."""
    files = [list(group) for _, group in groupby(items, key=lambda item: item.path)]
    first: list[list[pytest.Item]] = []
    waiting: list[list[pytest.Item]] = []
    computing: list[list[pytest.Item]] = []
    for file in files:
        name = file[0].path.relative_to(_HERE).as_posix()
        kind = first if name in LONGEST else waiting if name.startswith("e2e/") else computing
        kind.append(file)
    placed = [
        ((position + 0.5) / len(kind), file)
        for kind in (waiting, computing)
        for position, file in enumerate(kind)
    ]
    placed.sort(key=lambda pair: pair[0])
    return [item for file in (*first, *(file for _, file in placed)) for item in file]

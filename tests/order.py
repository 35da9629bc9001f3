"""The order of the files of tests, where several processes share them (`make test`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

LONGEST = ("e2e/test_databases.py", "e2e/test_faulty_rows.py", "e2e/test_handover.py", "cli/test_commands.py")
_HERE = Path(__file__).parent


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The same tests: what begins last should not be what takes longest, while the other processes idle."""
    return sorted(items, key=lambda item: item.path.relative_to(_HERE).as_posix() not in LONGEST)

"""Another commit, checked out beside this one to be measured by the same benchmark."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The tree of ``commit``, removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(HERE.parent), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", folder, commit], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run([*git, "remove", "--force", folder], check=True)


def measured_in(tree: Path, script: str, *arguments: str) -> str:
    """What a benchmark of ours prints of the code in ``tree``: it takes that for its own (``BENCHMARKED``)."""
    command = [sys.executable, "-P", str(HERE / script), "--bare", *arguments]
    environment = {**os.environ, "BENCHMARKED": str(tree), "PYTHONPATH": str(tree)}
    return subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True, cwd=tree
    ).stdout

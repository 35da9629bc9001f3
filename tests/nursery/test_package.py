"""The package stands alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import gpustack.durable_file
import gpustack.nursery

ALLOWED = {"trio", "attrs", *sys.stdlib_module_names}
BESIDE = "gpustack.durable_file"


def test_it_imports_nothing_but_trio_attrs_and_the_standard_library() -> None:
    """And one module beside it, which keeps to the same."""
    files = sorted(Path(gpustack.nursery.__file__).parent.glob("*.py"))
    assert len(files) > 10
    for file in (*files, Path(gpustack.durable_file.__file__)):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [] if node.level == 1 else [node.module or ""]
                if node.module == "gpustack":
                    names = [f"gpustack.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            outside = {name.partition(".")[0] for name in names if name != BESIDE}
            assert outside <= ALLOWED, f"{file.name}: {names}"


def test_all_names_it_promises_are_there() -> None:
    for name in gpustack.nursery.__all__:
        assert hasattr(gpustack.nursery, name)

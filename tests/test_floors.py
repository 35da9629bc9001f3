"""Imports look down: the floors of the design, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PRODUCT = Path(__file__).resolve().parent.parent / "gpustack"

# from the ground up; what shares a floor does not import each other
FLOORS = (
    {"nursery", "http1", "config"},
    {"domain"},
    {"policy", "engines"},
    {"store", "hardware", "artifacts", "remote", "metrics", "identity", "ray"},
    {"server", "worker"},
    {"api", "gateway"},
    {"cli"},
)
NEIGHBOURS = {("policy", "engines"), ("artifacts", "remote"), ("identity", "remote"), ("identity", "store")}
# single modules that know nothing of the product: everyone may use them, they use each other at most
GROUND = {"durable_file", "errors", "plugins", "logs", "text", "__init__"}
# programs of their own that the daemon starts and never imports; nor do they import the daemon's packages
PROGRAMS = {"launchers"}

LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}


def imported(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Every module of the product that ``source`` imports, wherever in it: also in functions and for types."""
    parts = module.split(".")
    package = parts if is_package else parts[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "gpustack")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found = [*base, *(node.module.split(".") if node.module else [])]
            if found[:1] != ["gpustack"]:
                continue
            yield from (".".join([*found, alias.name]) for alias in node.names)


def place(module: str) -> str:
    """The package of the product that a module is in: "policy" for "gpustack.policy.filters.label"."""
    parts = module.split(".")
    inside = parts[1] if len(parts) > 1 else "__init__"
    if inside == "__main__":
        return "cli"
    return "__init__" if inside.startswith("__") else inside


def fault(importer: str, asked: str) -> str | None:
    """Why ``importer`` may not import ``asked``, or None."""
    here, there = place(importer), place(asked)
    if here == there or there in GROUND:
        return None
    if there in PROGRAMS:
        return f"{importer} imports the program {asked}: start it instead"
    if here in GROUND or here in PROGRAMS:
        return f"{importer} knows nothing of the product but imports {asked}"
    if LEVEL[there] < LEVEL[here] or (here, there) in NEIGHBOURS:
        return None
    where = "beside" if LEVEL[there] == LEVEL[here] else "above"
    return f"{importer} imports {asked}, which is {where} it"


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PRODUCT.rglob("*.py")):
        parts = ["gpustack", *path.relative_to(PRODUCT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_every_package_has_a_floor() -> None:
    places = {place(module) for module in modules()} - GROUND - PROGRAMS
    assert not places - LEVEL.keys(), "give the new package a place in FLOORS and in the design"


def test_imports_look_down() -> None:
    faults = []
    for module, path in modules().items():
        for asked in imported(path.read_text(), module, is_package=path.name == "__init__.py"):
            found = fault(module, asked)
            if found is not None:
                faults.append(found)
    assert not faults, "\n".join(sorted(set(faults)))


@pytest.mark.parametrize(
    ("importer", "source", "allowed"),
    [
        ("gpustack.policy.place", "from gpustack.domain import worker", True),
        ("gpustack.policy.place", "from gpustack.engines.engine import Engine", True),
        ("gpustack.engines.engine", "import gpustack.policy.place", False),
        ("gpustack.domain.worker", "def late():\n    from gpustack.store import store", False),
        ("gpustack.server.loop", "from gpustack.worker import probe", False),
        ("gpustack.server.loop", "from ..worker import probe", False),
        ("gpustack.server.loop", "from . import other\nfrom gpustack import __version__", True),
        ("gpustack.server.loop", "from gpustack import worker", False),
        ("gpustack.config.loader", "import gpustack.errors", True),
        ("gpustack.errors", "from gpustack.domain import worker", False),
    ],
)
def test_the_reader_of_imports_sees_each_kind(importer: str, source: str, allowed: bool) -> None:
    asked = list(imported(source, importer, is_package=False))
    assert asked
    assert (not any(fault(importer, one) for one in asked)) is allowed

"""Packages as registries: every module of the package is an entry."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def siblings(package: str) -> list[ModuleType]:
    """Import every public module directly inside ``package`` and return them sorted by name.

    Modules whose name starts with an underscore are private to the folder and left out.
    """
    parent = importlib.import_module(package)
    names = sorted(found.name for found in pkgutil.iter_modules(parent.__path__))
    return [importlib.import_module(f"{package}.{name}") for name in names if not name.startswith("_")]

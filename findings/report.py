"""Prints what a finding sees, and tells by the exit code whether that is still what was recorded."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from typing import Any

_changed: list[str] = []


def versions(*packages: str) -> None:
    """Print what is tried: Python, the kernel and the packages."""
    print(f"Python {platform.python_version()}, {platform.system()} {platform.release()}")
    for package in packages:
        print(f"{package} {version(package)}")


def observe(what: str, *, expected: Any, recorded: Any, seen: Any) -> None:
    """Print one observation: what one would expect, and what is seen; remember if it is not what was recorded."""
    print(f"\n{what}\n  expected: {expected}\n  seen:     {seen}")
    if seen != recorded:
        print(f"  recorded: {recorded}")
        _changed.append(what)


def conclude() -> None:
    """End the program: 0 if all is as recorded, else 1."""
    print(f"\n{len(_changed)} observations changed" if _changed else "\nas recorded")
    sys.exit(1 if _changed else 0)

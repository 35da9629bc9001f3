"""Faults that nobody foresaw, put into single steps of loops, and what every loop has to do with them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

ROOT = Path(__file__).resolve().parent.parent / "gpustack"


class Unforeseen(RuntimeError):
    """In no list of exceptions of ours."""


@attrs.define(eq=False)
class Stumble:
    """One step that fails the first ``times`` it is taken for a row."""

    owner: Any
    step: str
    row: Callable[..., bool] = lambda *_, **__: True
    """Whether a call, by its arguments, is for the row that is to fail."""
    times: int = 2
    fallen: int = 0

    def put(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Into the place of the step itself: no loop takes all its steps by an argument."""
        whole = getattr(self.owner, self.step)

        def fails(*args: Any, **kinds: Any) -> bool:
            if self.fallen >= self.times or not self.row(*args, **kinds):
                return False
            self.fallen += 1
            return True

        def plain(*args: Any, **kinds: Any) -> Any:
            if fails(*args, **kinds):
                raise Unforeseen(f"{self.step} stumbled")
            return whole(*args, **kinds)

        async def waiting(*args: Any, **kinds: Any) -> Any:
            if fails(*args, **kinds):
                await trio.lowlevel.checkpoint()
                raise Unforeseen(f"{self.step} stumbled")
            return await whole(*args, **kinds)

        monkeypatch.setattr(self.owner, self.step, waiting if inspect.iscoroutinefunction(whole) else plain)

    def __str__(self) -> str:
        return f"{getattr(self.owner, '__name__', self.owner).rpartition('.')[2]}.{self.step}"


def services(*packages: str) -> set[str]:
    """The classes in these packages whose ``run`` is the life of a service."""
    found = set()
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and any(_is_life(one) for one in node.body):
                    found.add(node.name)
    return found


def _is_life(node: ast.stmt) -> bool:
    named = isinstance(node, ast.AsyncFunctionDef) and node.name == "run"
    return named and any(argument.arg == "task_status" for argument in node.args.kwonlyargs)

"""The live tree of tasks, by their names alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

_DEPTH = 32


def tree(task: trio.lowlevel.Task) -> dict[str, Any]:
    """The task and those below it: ``{"name": ..., "children": [...]}``.

    Tasks of one tier are gathered under the tier's name. Shows names only, no locals: it is served to people.
    """
    return _node(task, task.name, _DEPTH)


def draw_tree(task: trio.lowlevel.Task) -> str:
    """The same, drawn with lines."""
    root = tree(task)
    return "\n".join([root["name"], *_lines(root["children"], "")])


def _node(task: trio.lowlevel.Task, name: str, depth: int) -> dict[str, Any]:
    if depth == 0:
        return {"name": name, "children": [{"name": "…", "children": []}]}
    children = [child for nursery in task.child_nurseries for child in _grouped(nursery, depth - 1)]
    return {"name": name, "children": children}


def _grouped(nursery: trio.Nursery, depth: int) -> Iterator[dict[str, Any]]:
    tiers: dict[str, list[dict[str, Any]]] = {}
    for task in sorted(nursery.child_tasks, key=lambda task: task.name):
        tier, slash, name = task.name.partition("/")
        if not slash:
            yield _node(task, task.name, depth)
        elif not name.startswith("_"):  # a tier's own chores
            tiers.setdefault(tier, []).append(_node(task, name, depth))
        else:
            tiers.setdefault(tier, [])
    for tier, children in tiers.items():
        yield {"name": tier, "children": children}


def _lines(children: list[dict[str, Any]], indent: str) -> Iterator[str]:
    for place, child in enumerate(children, start=1):
        last = place == len(children)
        yield f"{indent}{'└─' if last else '├─'} {child['name']}"
        yield from _lines(child["children"], indent + ("   " if last else "│  "))

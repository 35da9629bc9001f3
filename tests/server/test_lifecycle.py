"""The table of moves and the code agree: no state is written beside it, and it has no row that nobody makes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from gpustack.domain import lifecycle
from gpustack.domain.lifecycle import EVICT, MOVES, TRANSITIONS, InstanceState, Move, Party, allowed

PRODUCT = Path(__file__).resolve().parents[2] / "gpustack"
TABLE = "domain/lifecycle.py"
WRITER = "server/lifecycle.py"
"""The one module that may move instances, by way of the store."""
STORE = "store/transaction.py"
PURE = "policy/"
"""Writes nothing: a state there is part of a question, such as what a drain leads to."""
SIMULATION = "server/simulation.py"
"""Plays the loops on snapshots that are stored nowhere."""

NAMED = {name: value for name, value in vars(lifecycle).items() if isinstance(value, Move)}
"""The moves that the server asks for by name."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PRODUCT.rglob("*.py")):
        yield path.relative_to(PRODUCT).as_posix(), ast.parse(path.read_text())


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def state_named(node: ast.expr | None) -> str | None:
    """``RUNNING`` of ``InstanceState.RUNNING``."""
    is_state = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    return node.attr if is_state and node.value.id == "InstanceState" else None  # type: ignore[union-attr]


def faults(where: str, tree: ast.Module) -> list[str]:
    """Writes of an instance's state, or as a party, that are not where they belong."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {keyword.arg for keyword in node.keywords}
            if (
                called(node) in ("move", "change", "update")
                and "by" in given
                and where not in (WRITER, STORE)
            ):
                found.append(f"{where}:{node.lineno} writes as a party; {WRITER} does")
            speculates = where in (STORE, SIMULATION) or where.startswith(PURE)
            if called(node) in ("evolve", "change", "ModelInstance") and "state" in given and not speculates:
                found.append(f"{where}:{node.lineno} writes a state; {WRITER} does")
            if called(node) == "make_move":
                move = node.args[2] if len(node.args) > 2 else None
                if not (isinstance(move, ast.Name) and move.id in {*NAMED, "move"}):
                    found.append(f"{where}:{node.lineno} makes a move that {TABLE} does not name")
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            named = [
                key.value for key, value in pairs if isinstance(key, ast.Constant) and state_named(value)
            ]
            if "state" in named:
                found.append(f"{where}:{node.lineno} prepares a state to be written; {WRITER} writes it")
    return found


def test_states_are_written_in_one_module_by_moves_of_the_table() -> None:
    assert not [fault for where, tree in modules() for fault in faults(where, tree)]


@pytest.mark.parametrize(
    "source",
    [
        "tx.change(ModelInstance, 1, state=InstanceState.RUNNING)",
        "tx.update(attrs.evolve(instance, state=given))",
        "tx.insert(ModelInstance(name='a', state=InstanceState.RUNNING))",
        "tx.move(instance, InstanceState.RUNNING, by=Party.WORKER)",
        "tx.change(ModelInstance, 1, by=Party.WORKER, **{'state': InstanceState.RUNNING})",
        "VOID = {'state': InstanceState.PENDING, 'pid': None}",
        "make_move(tx, instance, Move(Party.USER, (), InstanceState.RUNNING, ''))",
    ],
)
def test_a_write_beside_it_is_found(source: str) -> None:
    assert faults("server/other.py", ast.parse(source))


def test_every_move_of_the_server_has_a_name_and_is_made_somewhere() -> None:
    """No row of the table that nobody makes."""
    assert {move for move in MOVES if move.by is not Party.WORKER} == set(NAMED.values())
    used = {
        node.id
        for where, tree in modules()
        if where != TABLE
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in NAMED
    }
    assert used == set(NAMED)


def test_the_rows_of_the_worker_are_those_that_its_reports_make() -> None:
    """A worker says a state; where it may not go there at once, its reporter leads over ``initializing``."""
    said = {
        InstanceState[name]
        for where, tree in modules()
        if where.startswith("worker/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node.args and (name := state_named(node.args[0]))
    }
    made = set()
    for source in EVICT.sources:
        for target in said:
            by_way = () if allowed(source, target, Party.WORKER) else (InstanceState.INITIALIZING,)
            steps = (source, *by_way, target)
            made.update((a, b) for a, b in pairwise(steps) if a is not b)
    assert made == {(t.source, t.target) for t in TRANSITIONS if t.by is Party.WORKER}


def test_the_table_says_each_move_once() -> None:
    rows = [(t.source, t.target, t.by) for t in TRANSITIONS]
    assert len(rows) == len(set(rows))

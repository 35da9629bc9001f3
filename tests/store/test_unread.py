"""A row that cannot be read is left out, and nothing else with it."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from gpustack.domain.access import User
from gpustack.domain.model import Model
from gpustack.domain.worker import SystemReserved, Worker, WorkerState, WorkerStatus
from gpustack.errors import AlreadyExists, Unavailable
from gpustack.store.load import records
from tests.policy import worlds

from .conftest import Opened, execute

ODD = [
    ("users", "source", "'Martian'"),
    ("users", "limits", "'['"),
    ("users", "limits", "'null'"),
    ("users", "username", "x'ff'"),
    ("users", "username", "cast(x'ff' as text)"),
    ("users", "full_name", "x'636166e9'"),
    ("users", "created_at", "'yesterday'"),
    ("users", "created_at", "12"),
    ("users", "version", "'many'"),
    ("models", "backend_parameters", "'{'"),
    ("models", "placement_strategy", "'sideways'"),
    ("models", "env", "12"),
    ("models", "replicas", "'three'"),
    ("models", "source", '\'{"kind": "floppy"}\''),
]


@pytest.mark.parametrize(("table", "column", "value"), ODD)
async def test_a_row_that_cannot_be_read_is_left_out_and_named(
    table: str,
    column: str,
    value: str,
    opened_file: Opened,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened_file() as store:
        for name in ("ada", "bert"):
            await store.write(lambda tx, n=name: tx.insert(User(username=n)))
            await store.write(lambda tx, n=name: tx.insert(_model(n)))
    with sqlite3.connect(tmp_path / "database.db") as raw:
        raw.execute(f"update {table} set {column} = {value} where id = 1")
    raw.close()
    with caplog.at_level(logging.ERROR):
        async with opened_file() as store:
            found = store.snapshot
            assert {name: frozenset(rows) for name, rows in found.tables.items() if rows} == {
                name: frozenset({2} if name == table else {1, 2}) for name in ("users", "models")
            }
            assert found.unread == {table: frozenset({1})}
            made = await store.write(lambda tx: tx.insert(_model("new")))
            assert store.snapshot.models[made.id] == made
            assert store.snapshot.unread == found.unread
            with store._database.write.begin() as conn, pytest.raises(Unavailable, match=f"row 1 of {table}"):
                list(records(conn, "it"))
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert f"table={table} id=1" in line and "\n" not in line


async def test_what_is_unique_in_it_stays_taken(opened_file: Opened, tmp_path: Path) -> None:
    async with opened_file() as store:
        await store.write(lambda tx: tx.insert(User(username="ada")))
    with sqlite3.connect(tmp_path / "database.db") as raw:
        raw.execute("update users set source = 'Martian'")
    raw.close()
    async with opened_file() as store:
        with pytest.raises(AlreadyExists):
            await store.write(lambda tx: tx.insert(User(username="ada")))
        await store.write(lambda tx: tx.insert(User(username="bert")))


@pytest.mark.parametrize("value", ["'['", "'null'", "12", "x'ff'"])
@pytest.mark.parametrize("column", ["status", "condition", "system_reserved"])
async def test_what_a_worker_tells_anew_begins_anew(
    column: str, value: str, opened_file: Opened, tmp_path: Path
) -> None:
    async with opened_file() as store:
        made = worlds.worker(gpus=[worlds.gpu(0)], id=0)
        await store.write(lambda tx: tx.insert(made))
    with sqlite3.connect(tmp_path / "database.db") as raw:
        raw.execute(f"update workers set {column} = {value}")
    raw.close()
    async with opened_file() as store:
        (worker,) = store.snapshot.workers.values()
        begun = {
            "status": worker.status == WorkerStatus(),
            "condition": worker.condition.state is WorkerState.NOT_READY,
            "system_reserved": worker.system_reserved == SystemReserved(),
        }
        assert begun[column] and worker.name == made.name
        status = WorkerStatus(detection_faults=("none",))
        await store.write(lambda tx: tx.change(Worker, worker.id, status=status, condition=made.condition))
    async with opened_file() as store:
        assert store.snapshot.workers[worker.id].status == status


async def test_a_server_hears_of_a_row_that_another_has_broken(
    opened_file: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened_file() as store:
        for name in ("a", "b"):
            await store.write(lambda tx, n=name: tx.insert(_model(n)))
        execute(store, "update models set env = '[' where id = 1")
        execute(store, "delete from changes")
        execute(store, "update heads set revision = revision + 5")
        with caplog.at_level(logging.ERROR):
            await store.write(lambda tx: tx.insert(_model("c")))
        assert set(store.snapshot.models) == {2, 3}
        assert store.snapshot.unread_of(Model) == {1}
        assert caplog.text.count("table=models id=1") == 1
        execute(store, "update models set env = '{}' where id = 1")
        execute(store, "delete from changes")
        execute(store, "update heads set revision = revision + 5")
        await store.write(lambda tx: tx.insert(_model("d")))
        assert set(store.snapshot.models) == {1, 2, 3, 4}
        assert not store.snapshot.unread_of(Model)


def _model(name: str) -> Model:
    return worlds.model(id=0, name=name)

"""The database of a newer program is kept beside what is restored, however often that is done."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gpustack.cli.newer_database import put_aside
from gpustack.store.migration import known


def of_schema(file: Path, schema: str, mark: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES (?)", (schema,))
        database.execute("CREATE TABLE mark (text VARCHAR)")
        database.execute("INSERT INTO mark VALUES (?)", (mark,))


def mark_of(file: Path) -> str:
    with closing(sqlite3.connect(file)) as database:
        return str(database.execute("SELECT text FROM mark").fetchone()[0])


def test_what_an_earlier_restore_has_kept_is_kept(tmp_path: Path) -> None:
    file, kept = tmp_path / "database.db", []
    for mark in ("first", "second", "third"):
        of_schema(file, "9999", mark)
        with put_aside(f"sqlite:///{file}") as aside:
            assert aside is not None and not file.exists()
            kept.append((aside.name, mark_of(aside)))
    assert kept == [
        ("database.db.newer", "first"),
        ("database.db.newer-2", "second"),
        ("database.db.newer-3", "third"),
    ]
    assert mark_of(tmp_path / "database.db.newer") == "first"


def test_after_a_fault_it_is_back_and_one_of_ours_is_not_moved(tmp_path: Path) -> None:
    file = tmp_path / "database.db"
    of_schema(file, "9999", "newer")
    with pytest.raises(ZeroDivisionError), put_aside(f"sqlite:///{file}"):
        raise ZeroDivisionError
    assert mark_of(file) == "newer" and [one.name for one in tmp_path.iterdir()] == ["database.db"]
    file.unlink()
    of_schema(file, known()[-1], "ours")
    with put_aside(f"sqlite:///{file}") as aside:
        assert aside is None and mark_of(file) == "ours"

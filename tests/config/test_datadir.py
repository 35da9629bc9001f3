from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gpustack.config.datadir import DataDirError, lock_data_dir, make_dir, refuse_foreign_database

HOLDER = (
    "import sys\n"
    "from pathlib import Path\n"
    "from gpustack.config.datadir import lock_data_dir\n"
    "with lock_data_dir(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


def test_a_new_data_directory_is_its_owner_s_alone(tmp_path: Path) -> None:
    made = tmp_path / "a" / "b"
    make_dir(made)
    assert made.stat().st_mode & 0o777 == 0o700
    make_dir(made)


def test_a_data_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirError, match=r"cannot be used: .* Choose another with --data-dir"):
        make_dir(tmp_path / "file")
    with pytest.raises(DataDirError, match="cannot be used"):
        make_dir(tmp_path / "file" / "below")
    with pytest.raises(DataDirError, match="cannot be used"):
        lock_data_dir(tmp_path / "absent")


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataDirError, match=rf"in use by another GPUStack \(process {holder.pid}\)"):
            lock_data_dir(tmp_path)
        holder.kill()
        holder.wait(timeout=30)
        with lock_data_dir(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    finally:
        holder.kill()
        holder.communicate(timeout=30)


def test_a_lock_is_free_once_closed_and_says_what_it_is(tmp_path: Path) -> None:
    lock = lock_data_dir(tmp_path)
    assert repr(lock) == f"<DataLock {tmp_path} held>"
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    lock.close()
    lock.close()
    assert repr(lock) == f"<DataLock {tmp_path} released>"
    lock_data_dir(tmp_path).close()


def test_a_lock_handed_over_is_never_free_in_between(tmp_path: Path) -> None:
    before = lock_data_dir(tmp_path)
    after = lock_data_dir(tmp_path, inherited=os.dup(before.fileno()))
    before.close()
    with pytest.raises(DataDirError, match="in use"):
        lock_data_dir(tmp_path)
    assert not os.get_inheritable(after.fileno())
    after.close()
    lock_data_dir(tmp_path).close()


def test_a_descriptor_of_another_directory_s_lock_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "lock").touch()
    belongs = pytest.raises(DataDirError, match="belongs to another directory")
    with lock_data_dir(tmp_path / "a") as lock, belongs:
        lock_data_dir(tmp_path / "b", inherited=os.dup(lock.fileno()))


def database(folder: Path, *tables: str) -> None:
    connection = sqlite3.connect(folder / "database.db")
    connection.execute("PRAGMA journal_mode = WAL")
    for name in tables:
        connection.execute(f"CREATE TABLE {name} (id INTEGER)")
    connection.commit()
    connection.close()


def test_the_database_of_an_existing_product_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    database(tmp_path, "alembic_version", "model_instances", "models")
    before = (tmp_path / "database.db").read_bytes()
    with pytest.raises(DataDirError, match="database of another GPUStack, which is never changed in place"):
        refuse_foreign_database(tmp_path)
    assert (tmp_path / "database.db").read_bytes() == before


@pytest.mark.parametrize(
    "tables", [(), ("alembic_version", "model_instances", "changes"), ("alembic_version",)]
)
def test_our_own_database_is_taken(tables: tuple[str, ...], tmp_path: Path) -> None:
    database(tmp_path, *tables)
    refuse_foreign_database(tmp_path)


def test_an_absent_or_empty_database_is_taken(tmp_path: Path) -> None:
    refuse_foreign_database(tmp_path)
    (tmp_path / "database.db").touch()
    refuse_foreign_database(tmp_path)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "database.db").write_text("x" * 5000)
    with pytest.raises(DataDirError, match="cannot be read"):
        refuse_foreign_database(tmp_path)

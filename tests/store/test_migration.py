"""The schema goes up and down, and is the one the record classes ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import trio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.schema import CreateTable

from gpustack.domain.access import User
from gpustack.errors import Unavailable
from gpustack.store import StoreSettings, open_store
from gpustack.store.database import open_database
from gpustack.store.migration import current, known, to, upgrade
from gpustack.store.table import metadata
from tests.child import child, environment

from .conftest import Clock, Opened


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sa.Connection]:
    database = open_database(f"sqlite:///{tmp_path / 'database.db'}")
    with database.write.begin() as conn:
        yield conn
    database.close()


def differences(conn: sa.Connection) -> list[object]:
    context = MigrationContext.configure(conn, opts={"compare_type": True, "target_metadata": metadata})
    return list(compare_metadata(context, metadata))


def test_migrations_lead_to_the_tables_of_the_record_classes(conn: sa.Connection) -> None:
    """If this fails you changed a record class: add a migration that makes the difference shown."""
    upgrade(conn, "here")
    assert differences(conn) == []
    assert current(conn) == known()[-1]


def test_the_schema_goes_up_and_down_and_up(conn: sa.Connection) -> None:
    for _ in range(2):
        for revision in known():
            to(conn, revision)
        assert differences(conn) == []
        for revision in [*reversed(known()[:-1]), "base"]:
            to(conn, revision)
        assert set(sa.inspect(conn).get_table_names()) <= {"alembic_version", "sqlite_sequence"}


def test_ids_and_revisions_count_on_whatever_is_deleted(conn: sa.Connection) -> None:
    """Derived tables and migrated ones alike: autogenerate does not compare this."""
    upgrade(conn, "here")
    made = conn.execute(sa.text("select name, sql from sqlite_master where type = 'table'")).all()
    without = [row.name for row in made if "AUTOINCREMENT" not in row.sql]
    assert set(without) == {"alembic_version", "sqlite_sequence", "heads", "leases"}


@pytest.mark.parametrize("dialect", [postgresql.dialect(), mysql.dialect()], ids=lambda d: d.name)
def test_the_tables_can_be_written_in_other_dialects(dialect: sa.Dialect) -> None:
    for table in metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=dialect))


async def test_a_failed_migration_leaves_nothing(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'database.db'}")
    with pytest.raises(ZeroDivisionError), database.write.begin() as conn:
        upgrade(conn, "here")
        raise ZeroDivisionError
    with database.write.begin() as conn:
        assert sa.inspect(conn).get_table_names() == []
    database.close()


async def test_a_database_of_a_newer_program_is_left_alone(
    opened_file: Opened, tmp_path: Path, clock: Clock
) -> None:
    async with opened_file() as store:
        await store.write(lambda tx: tx.insert(User(username="ada")))
    database = open_database(f"sqlite:///{tmp_path / 'database.db'}")
    with database.write.begin() as conn:
        conn.execute(sa.text("update alembic_version set version_num = '9999'"))
    database.close()
    with pytest.raises(Unavailable, match=r"newer gpustack \(schema 9999.*upgrade this gpustack"):
        await open_store(StoreSettings(data_dir=str(tmp_path)), clock)


async def test_a_database_of_another_program_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'database.db'}")
    with database.write.begin() as conn:
        conn.execute(sa.text("create table recipes (id integer)"))
    database.close()
    with pytest.raises(Unavailable, match=r"tables that are not ours \(recipes\)"):
        await open_store(StoreSettings(data_dir=str(tmp_path)), clock)


CURRENT = """
import sys, trio
from datetime import UTC, datetime
from gpustack.store import StoreSettings, open_store
async def main():
    store = await open_store(StoreSettings(data_dir=sys.argv[1]), lambda: datetime.now(UTC))
    store.close()
trio.run(main)
print("alembic" in sys.modules)
"""


async def test_alembic_is_loaded_only_when_there_is_something_to_do(tmp_path: Path) -> None:
    import subprocess
    import sys

    answers = [
        await trio.run_process(
            [sys.executable, "-c", CURRENT, str(tmp_path)], env=environment(), capture_stdout=True
        )
        for _ in range(2)
    ]
    assert [answer.stdout.strip() for answer in answers] == [b"True", b"False"]
    assert isinstance(answers[0], subprocess.CompletedProcess)


def test_programs_that_start_at_once_migrate_one_after_the_other(tmp_path: Path) -> None:
    with child(["-c", CURRENT, str(tmp_path)]) as one, child(["-c", CURRENT, str(tmp_path)]) as two:
        words = sorted(process.communicate(timeout=60)[0].strip() for process in (one, two))
        assert (one.returncode, two.returncode) == (0, 0)
    assert words == ["False", "True"]

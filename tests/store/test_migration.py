"""The schema goes up and down, and is the one the record classes ask for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import trio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from gpustack.domain.access import User
from gpustack.errors import Unavailable
from gpustack.store import journal
from gpustack.store.codec import codec
from gpustack.store.database import Database, open_database
from gpustack.store.migration import current, known, migrate, to, upgrade
from gpustack.store.table import heads, metadata, tables
from tests.child import child, environment

from .conftest import Opened, execute


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A new database of each kind, without tables."""
    database = open_database(url)
    yield database
    database.close()


@pytest.fixture
def conn(database: Database) -> Iterator[sa.Connection]:
    """A transaction that may change the schema."""
    with database.migrating() as conn:
        yield conn


def differences(conn: sa.Connection) -> list[object]:
    context = MigrationContext.configure(conn, opts={"compare_type": True, "target_metadata": metadata})
    return list(compare_metadata(context, metadata))


@pytest.mark.parametrize("make", [lambda conn: to(conn, "head"), lambda conn: upgrade(conn, "here")])
def test_migrations_lead_to_the_tables_of_the_record_classes(
    make: Callable[[sa.Connection], None], conn: sa.Connection
) -> None:
    """If this fails you changed a record class: add a migration that makes the difference shown. A new database is made
    without migrations, and is the same."""
    make(conn)
    assert differences(conn) == []
    assert current(conn) == known()[-1]
    assert conn.execute(sa.select(heads)).all() == [(1, 0)]


def test_a_new_database_has_what_migrations_make(url: str, database: Database) -> None:
    with database.migrating() as conn:
        upgrade(conn, "here")
        new = schema(conn)
        to(conn, "base")
        to(conn, "head")
        assert schema(conn) == new


def schema(conn: sa.Connection) -> dict[str, object]:
    """All that is seen of the tables, whatever the order of their columns; defaults for rows of before are left out."""
    look = sa.inspect(conn)
    return {
        name: (
            sorted((one["name"], str(one["type"]), one["nullable"]) for one in look.get_columns(name)),
            look.get_pk_constraint(name)["constrained_columns"],
            sorted((one["name"], one["column_names"], bool(one["unique"])) for one in look.get_indexes(name)),
            sorted((one["name"], one["column_names"]) for one in look.get_unique_constraints(name)),
        )
        for name in sorted(look.get_table_names())
    }


def test_the_schema_goes_up_and_down_and_up(conn: sa.Connection) -> None:
    for _ in range(2):
        for revision in known():
            to(conn, revision)
        assert differences(conn) == []
        for revision in [*reversed(known()[:-1]), "base"]:
            to(conn, revision)
        assert set(sa.inspect(conn).get_table_names()) <= {"alembic_version", "sqlite_sequence"}


def test_ids_and_revisions_count_on_whatever_is_deleted(database: Database) -> None:
    """Derived tables and migrated ones alike: autogenerate does not compare this."""
    with database.migrating() as conn:
        upgrade(conn, "here")
    if database.place.endswith(".db"):
        with database.write.begin() as conn:
            made = conn.execute(sa.text("select name, sql from sqlite_master where type = 'table'")).all()
        without = [row.name for row in made if "AUTOINCREMENT" not in row.sql]
        assert set(without) == {
            "alembic_version",
            "sqlite_sequence",
            "heads",
            "leases",
            "servers",
            "cluster_secrets",
            "heartbeats",
            "worker_loads",
        }
    users = tables[User]
    with database.write.begin() as conn:
        row = codec(User).row(User(username="ada"))
        conn.execute(sa.insert(users), row)
        conn.execute(sa.delete(users))
        assert database.dialect.next_id(conn, users) == 2
        assert conn.execute(sa.insert(users), row).inserted_primary_key == (2,)


@pytest.mark.parametrize("steps", [1, 11, 23])
def test_a_first_upgrade_that_died_half_way_is_finished(database: Database, steps: int) -> None:
    """MySQL keeps the tables that were made before; on the others they are laid there by hand."""

    class Died(Exception):
        pass

    made = 0
    with contextlib.suppress(Died), database.migrating() as conn:

        @sa.event.listens_for(conn, "after_cursor_execute")
        def die(*arguments: object) -> None:
            nonlocal made
            made += str(arguments[2]).lstrip().upper().startswith("CREATE")
            if made == steps:
                raise Died

        upgrade(conn, "here")
    assert made == steps
    with database.write.begin() as conn:
        before = set(sa.inspect(conn).get_table_names())
    assert bool(before) is (database.dialect.clock.find("sysdate") >= 0)
    migrate(database)
    with database.write.begin() as conn:
        assert differences(conn) == []
        assert current(conn) == known()[-1]


def test_an_older_database_goes_on_where_it_was(database: Database) -> None:
    with database.migrating() as conn:
        to(conn, "0001")
        conn.execute(
            sa.text(
                "insert into changes (revision, at, kind, table_name, record_id, record)"
                " values (41, '2026-01-01', 'created', 'users', 1, '{}')"
            )
        )
    migrate(database)
    with database.write.begin() as conn:
        assert journal.revision(conn) == 41


def test_a_failed_migration_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.migrating() as conn:
        upgrade(conn, "here")
        raise ZeroDivisionError
    with database.write.begin() as conn:
        found = sa.inspect(conn).get_table_names()
    assert found == [] or "sysdate" in database.dialect.clock  # MySQL cannot take tables back
    migrate(database)


async def test_a_database_of_a_newer_program_is_left_alone(opened: Opened) -> None:
    async with opened() as store:
        await store.write(lambda tx: tx.insert(User(username="ada")))
        execute(store, "update alembic_version set version_num = '9999'")
    with pytest.raises(Unavailable, match=r"newer gpustack \(schema 9999.*upgrade this gpustack"):
        async with opened():
            pass


async def test_a_database_of_another_program_is_left_alone(database: Database, opened: Opened) -> None:
    with database.write.begin() as conn:
        conn.execute(sa.text("create table recipes (id integer)"))
    database.close()
    with pytest.raises(Unavailable, match=r"tables that are not ours \(recipes\)"):
        async with opened():
            pass


CURRENT = """
import sys, trio
from datetime import UTC, datetime
from gpustack.store import StoreSettings, open_store
async def main():
    store = await open_store(StoreSettings(data_dir="unused", url=sys.argv[1]), lambda: datetime.now(UTC))
    store.close()
trio.run(main)
print("alembic" in sys.modules)
"""


def set_back(url: str, revision: str) -> None:
    """Make the database one of an older program."""
    database = open_database(url)
    with database.migrating() as conn:
        to(conn, revision)
    database.close()


async def test_alembic_is_loaded_only_when_there_is_something_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/database.db"

    async def loaded() -> bytes:
        command = [sys.executable, "-c", CURRENT, url]
        return (await trio.run_process(command, env=environment(), capture_stdout=True)).stdout.strip()

    assert [await loaded(), await loaded()] == [b"False", b"False"]
    set_back(url, known()[-2])
    assert [await loaded(), await loaded()] == [b"True", b"False"]


@pytest.mark.parametrize("begun", [False, True], ids=["new", "old"])
def test_programs_that_start_at_once_migrate_one_after_the_other(begun: bool, url: str) -> None:
    if begun:
        set_back(url, known()[0])
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(child(["-c", CURRENT, url])) for _ in range(4)]
        words = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
        assert [process.returncode for process in processes] == [0, 0, 0, 0]
    # A file has one writer at a time; elsewhere several may find it old before one of them migrates.
    assert words[-1] == str(begun) and (words[0] == "False" or not url.startswith("sqlite"))
    database = open_database(url)
    with database.write.begin() as conn:
        assert differences(conn) == []
    database.close()

"""Faults of the place where the database lies, each in a sentence."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
import trio

from gpustack.domain.access import Session, User
from gpustack.errors import AlreadyExists, Invalid, Unavailable
from gpustack.store import StoreSettings, Tx, open_store
from gpustack.store.codec import codec
from gpustack.store.lock import FileLock
from gpustack.store.table import tables

from .conftest import Clock, Opened, execute, opening


async def refusal(url: str | None, folder: Path, clock: Clock) -> str:
    with pytest.raises((Unavailable, Invalid)) as caught:
        await open_store(StoreSettings(data_dir=str(folder), url=url), clock)
    return str(caught.value)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.parametrize("old_mode", [None, 0o644])
async def test_the_files_are_for_us_alone(opened_file: Opened, tmp_path: Path, old_mode: int | None) -> None:
    if old_mode is not None:
        (tmp_path / "database.db").touch(old_mode)
    async with opened_file() as store:
        await store.write(lambda tx: tx.insert(User(username="ada")))
        found = modes(tmp_path)
    assert found == dict.fromkeys(
        ["database.db", "database.db-wal", "database.db-shm", "database.db.lock"], 0o600
    )


async def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "database.db").write_bytes(b"this is no database" * 1000)
    said = await refusal(None, tmp_path, clock)
    assert said.startswith(f"The database {tmp_path}/database.db is damaged or is no database")
    assert "restore it from a backup" in said


async def test_a_place_that_cannot_be_written_is_named_with_the_knob(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    said = await refusal(None, tmp_path / "file", clock)
    assert "cannot be written" in said and "--data-dir" in said
    (tmp_path / "database.db").mkdir()
    assert "cannot be written" in await refusal(None, tmp_path, clock)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_file_without_permission_is_named(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "database.db").touch(0o400)
    assert "cannot be written" in await refusal(None, tmp_path, clock)


async def test_a_url_of_no_database_of_ours_is_refused(tmp_path: Path, clock: Clock) -> None:
    assert "--database-url" in await refusal("nonsense", tmp_path, clock)
    said = await refusal("postgresql://me:hush@host/db", tmp_path, clock)
    assert "postgresql" in said and "hush" not in said


async def test_a_folder_with_odd_characters_in_its_name_will_do(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "100% sure? #1 & more"
    store = await open_store(StoreSettings(data_dir=str(folder)), clock)
    assert await store.query(lambda conn: conn.execute(sa.text("select count(*) from users")).scalar()) == 0
    store.close()
    assert (folder / "database.db").exists()


async def test_two_daemons_do_not_share_a_database(opened_file: Opened, tmp_path: Path) -> None:
    async with opened_file():
        lock = FileLock(tmp_path / "database.db.lock", wait=0.05)
        with pytest.raises(Unavailable, match=rf"in use by another gpustack \(process {os.getpid()}\)"):
            await trio.to_thread.run_sync(lock.acquire)
    lock.acquire()
    lock.release()
    lock.release()


async def test_readers_cannot_write(opened: Opened) -> None:
    async with opened() as store:
        with pytest.raises(Unavailable, match="cannot be written"):
            await store.query(lambda conn: conn.execute(sa.text("delete from users")))


async def test_a_write_that_the_database_refuses_is_the_callers_alone(opened: Opened) -> None:
    """Trouble that the database sees and memory does not: a row that came by another way, broken SQL."""
    async with opened() as store:

        def broken(tx: Tx) -> None:
            tx.insert(User(username="ghost"))
            tx._begin_writing().execute(sa.text("select * from nowhere"))

        def clash(tx: Tx) -> None:
            tx.insert(User(username="ghost"))
            session = Session(user_id=1, token_hash="h", expires_at=Clock().now, version=1)
            tx._begin_writing().execute(sa.insert(tables[Session]), codec(Session).row(session))
            tx.insert(session)

        failures: list[BaseException] = []

        async def attempt(work: Callable[[Tx], None], kind: type[Exception]) -> None:
            with pytest.raises(kind) as caught:
                await store.write(work)
            failures.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, broken, Unavailable)
            nursery.start_soon(store.write, lambda tx: tx.insert(User(username="ada")))
            nursery.start_soon(attempt, clash, AlreadyExists)
            nursery.start_soon(store.write, lambda tx: tx.insert(User(username="bob")))
        assert len(failures) == 2
        assert all(isinstance(failure.__cause__, sa.exc.DBAPIError) for failure in failures)
        assert {user.username for user in store.snapshot.users.values()} == {"ada", "bob"}
        assert not store.snapshot.sessions
        before = store.snapshot
    async with opened() as store:
        assert store.snapshot == before


async def test_a_commit_that_fails_fails_all_and_leaves_nothing(opened: Opened) -> None:
    """The table of changes is gone under our feet: what had been done in the transaction is undone."""
    async with opened() as store:
        await store.write(lambda tx: tx.insert(User(username="ada")))
        execute(store, "alter table changes rename to away")
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await store.write(lambda tx: tx.insert(User(username="bob")))
            assert caught.value.retry_after is not None
        assert [user.username for user in store.snapshot.users.values()] == ["ada"]
        execute(store, "alter table away rename to changes")
        await store.write(lambda tx: tx.insert(User(username="bob")))
        assert store.snapshot.revision == 2
        before = store.snapshot
    async with opened() as store:
        assert store.snapshot == before


async def test_a_value_that_a_database_cannot_keep_is_the_callers_fault(
    server_url: str, clock: Clock
) -> None:
    async with opening(server_url, clock) as store:
        for name in ("x" * 300, "nul\0"):
            with contextlib.suppress(Invalid):  # MySQL keeps a NUL
                made = await store.write(lambda tx, name=name: tx.insert(User(username=name)))
                assert made.username == "nul\0"
        await store.write(lambda tx: tx.insert(User(username="ada")))

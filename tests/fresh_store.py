"""Stores on a new SQLite database that has its tables already: migrating one takes longer than most tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from gpustack.store import Store, StoreSettings, open_store

_EMPTY: list[bytes] = []
"""A migrated database without records, made once in each process."""


async def put_database(file: Path) -> None:
    """Write a database with tables and without records to ``file``, unless it exists."""
    if not _EMPTY:
        with tempfile.TemporaryDirectory() as folder:
            (await open_store(StoreSettings(data_dir=folder), lambda: datetime.now(UTC))).close()
            _EMPTY.append(_read(Path(folder) / "database.db"))
    _write_unless_there(file, _EMPTY[0])


def _read(file: Path) -> bytes:
    return file.read_bytes()


def _write_unless_there(file: Path, content: bytes) -> None:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


async def open_fresh(folder: Path, clock: Callable[[], datetime]) -> Store:
    """A store in ``folder``, as ``open_store`` opens it; it does not run yet."""
    await put_database(folder / "database.db")
    return await open_store(StoreSettings(data_dir=str(folder)), clock)

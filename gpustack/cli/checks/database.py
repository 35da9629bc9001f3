"""Whether the database of a server on this machine can be read, and is sound or answers."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import trio

from gpustack.cli.check import CheckContext, Finding, failed, good, note
from gpustack.domain.unit import human_bytes

_SQLITE = "sqlite:///"
_LONGEST = 10.0
"""Seconds after which the check of a large database is given up."""
_STEPS = 100_000
_FIX_OF_SERVER = "Mend that, then start the daemon; docs/databases.md tells what a database needs."
_FIX = "Stop the daemon, move the file away and put a backup in its place, or choose another --data-dir."


async def look(context: CheckContext) -> list[Finding]:
    options = context.server_options
    if options is None:
        return []
    url = options.database_url
    if not url.startswith(_SQLITE):
        return [await trio.to_thread.run_sync(_answer, url)]
    file = Path(url.removeprefix(_SQLITE))
    return [await trio.to_thread.run_sync(partial(_sound, file, time.monotonic() + _LONGEST))]


def _answer(url: str) -> Finding:
    """Whether a database server can be reached and used. Blocks."""
    from gpustack.errors import GpustackError
    from gpustack.store.database import open_database

    try:
        database = open_database(url)
        try:
            database.look()
        finally:
            database.close()
    except GpustackError as error:
        return failed(str(error), _FIX_OF_SERVER)
    return good(f"{database.place} answers, and can be used")


def _sound(file: Path, until: float) -> Finding:
    if not file.exists():
        return note(f"{file} is not there yet; the first start makes it")
    journal = file.with_name(f"{file.name}-wal")  # what was written last, which the file gets later
    size = human_bytes(sum(one.stat().st_size for one in (file, journal) if one.exists()))
    try:
        with closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        ) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        return note(f"{file} ({size}) could not be checked: {error}")
    except sqlite3.DatabaseError as error:
        return failed(f"{file} cannot be read ({error})", _FIX)
    if said != "ok":
        return failed(f"{file} is damaged: {' '.join(str(said).split())[:200]}", _FIX)
    return good(f"{file} ({size}) is sound")

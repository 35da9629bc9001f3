"""A database file that a newer program has written: an older one cannot empty it, and keeps it beside."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path

from .installation import file_of

_ENDS = ("", "-wal", "-shm")


@contextmanager
def put_aside(url: str) -> Iterator[Path | None]:
    """Rename the file of an SQLite URL while something else takes its place, if a newer program has written it.

    Gives its new name, ``None`` where nothing has to be done. After a fault it has its former name again. Blocks.
    """
    path = file_of(url)
    if path is None or not path.is_file() or _is_ours(path):
        yield None
        return
    aside = _free_name(path)
    with ExitStack() as back:
        _rename(path, aside)
        back.callback(_rename, aside, path)
        yield aside
        back.pop_all()


def _free_name(path: Path) -> Path:
    """One beside it that no earlier restore has used: what that kept is kept."""
    names = (path.with_name(f"{path.name}.newer{f'-{number}' if number > 1 else ''}") for number in count(1))
    return next(name for name in names if not name.exists())


def _is_ours(path: Path) -> bool:
    """Whether this program knows the schema. What cannot be read, or is no database, is told by those who open it."""
    from gpustack.store.migration import known

    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        ) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return True
    return row is None or row[0] <= known()[-1]


def _rename(path: Path, to: Path) -> None:
    """With the journal beside it: the two belong together."""
    for end in _ENDS:
        source, target = path.with_name(path.name + end), to.with_name(to.name + end)
        if source.exists():
            source.replace(target)
        else:
            target.unlink(missing_ok=True)

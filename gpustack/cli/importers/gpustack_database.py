"""Reads GPUStack 0.7 or 2.x from its database, which is not changed: SQLite read-only, PostgreSQL and MySQL too."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from gpustack.cli.imported import Doc, Imported, ImportFault, of_others
from gpustack.cli.importers.gpustack import Installation, convert, number_of
from gpustack.cli.installation import file_of
from gpustack.store.database import open_database
from gpustack.text import said_by

_MOST_ROWS = 10_000
_LONGEST_JSON = 1 << 20
_LARGEST_CELL = 8 << 20
_LARGEST_TABLE = 64 << 20
_WITHIN = 60.0
_STEPS = 10_000
"""Of SQLite's machine, between two looks at the clock."""
_WAIT = 5.0

_SKIPPED = frozenset({"created_at", "updated_at"})
_COLUMNS = {
    "users": ("id", "username", "is_system", "principal_id"),
    "api_keys": ("id", "name"),
    "workers": ("id", "name"),
    "inference_backends": ("id", "backend_name", "is_built_in"),
}
"""Of tables that hold secrets only these columns are asked for."""
_OURS = "cluster_events"
"""A table that neither 0.7 nor 2.x has."""


def read_database(place: str, password: str | None) -> Imported:
    """Everything that its tables hold of deployments, and the names of the rest.

    ``place`` is a path of SQLite, or a URL without password. Blocks. Raises GpustackError.
    """
    path = file_of(place) if "://" in place else Path(place)
    if path is not None:
        with _file(path) as connection:
            return _read(_Tables(connection), str(path))
    with _server(sa.make_url(place).set(password=password)) as connection:
        return _read(_Tables(connection), place)


@contextmanager
def _file(path: Path) -> Iterator[sa.Connection]:
    if not path.is_file():
        raise ImportFault(f"{path} is no file: name GPUStack's database.db")
    url = f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true"
    engine = sa.create_engine(url, connect_args={"timeout": _WAIT})
    sa.event.listen(engine, "connect", _bound)
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.DatabaseError as error:
        reason = said_by(error.orig or error)
        raise ImportFault(f"{path} cannot be read as a database of GPUStack: {reason}") from error
    finally:
        engine.dispose()


def _bound(connection: sqlite3.Connection, _: object) -> None:
    """The schema of a file from elsewhere is a program: it gets no functions with effects, and runs out of room and
    time."""
    end = time.monotonic() + _WITHIN
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_CELL)
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)


@contextmanager
def _server(url: sa.URL) -> Iterator[sa.Connection]:
    database = open_database(url.render_as_string(hide_password=False))
    try:
        with database.read.connect() as connection:
            yield connection
    except sa.exc.DBAPIError as error:
        raise ImportFault(f"{database.place} cannot be read: {said_by(error.orig or error)}") from error
    finally:
        database.close()


class _Tables:
    """Rows of tables as documents: what is JSON in a column is read, what was deleted is left out."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._inspector = sa.inspect(connection)
        self.names = frozenset(self._inspector.get_table_names())

    def rows(self, table: str) -> list[Doc]:
        """At most ``_MOST_ROWS`` of them; none where there is no such table."""
        if table not in self.names:
            return []
        there = {str(column["name"]) for column in self._inspector.get_columns(table)}
        wanted: Sequence[str] = [
            name for name in (*_COLUMNS.get(table, sorted(there - _SKIPPED)), "deleted_at") if name in there
        ]
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in dict.fromkeys(wanted)]
        query = sa.select(*columns).select_from(sa.table(table)).limit(_MOST_ROWS)
        found, size = list[Doc](), 0
        for row in self._connection.execute(query):
            size += sum(len(value) for value in row if isinstance(value, str | bytes))
            if size > _LARGEST_TABLE:
                raise ImportFault(f"its table {table} holds more than {_LARGEST_TABLE >> 20} MiB")
            found.append(dict(row._mapping))
        return [
            {name: of_others(_value(value), f"{table}.{name}") for name, value in row.items()}
            for row in found
            if row.get("deleted_at") is None
        ]


def _value(value: Any) -> Any:
    """JSON stands in a column as text where the database, or its driver, does not know it."""
    if (
        isinstance(value, str)
        and (value[:1] in ("{", "[") or value == "null")
        and len(value) <= _LONGEST_JSON
    ):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _read(tables: _Tables, place: str) -> Imported:
    if "models" not in tables.names:
        raise ImportFault(f"{place} has no table of models: it is no database of GPUStack")
    if _OURS in tables.names:
        raise ImportFault(
            f"{place} is a database of this program itself: gpustack export writes manifests of what it deploys, "
            "gpustack backup and gpustack db move its records"
        )
    second = bool(tables.names & {"clusters", "model_routes"})
    found = Installation(
        models=tables.rows("models"),
        users=tables.rows("users"),
        keys=tables.rows("api_keys"),
        backends=tables.rows("inference_backends"),
        workers=tables.rows("workers"),
        routes=tables.rows("model_routes"),
        allowed=_allowed(tables),
    )
    return convert(found, f"the database of GPUStack {'2.x' if second else '0.7'}")


def _allowed(tables: _Tables) -> dict[int, list[str]]:
    """The accounts that may use a route (from 2.1 on), or a model (2.0), whichever there are."""
    users = tables.rows("users")
    links = _links(tables.rows("modelrouteuserlink"), "route_id", users, "user_id", "id")
    principals = tables.rows("model_route_principals")
    links += _links(principals, "route_id", users, "principal_id", "principal_id")
    if "model_routes" not in tables.names:
        links += _links(tables.rows("modeluserlink"), "model_id", users, "user_id", "id")
    allowed: dict[int, list[str]] = {}
    for key, name in links:
        allowed.setdefault(key, []).append(name)
    return allowed


def _links(rows: list[Doc], to: str, users: list[Doc], by: str, of: str) -> list[tuple[int, str]]:
    """What rows tie to accounts, which are told by the field ``of`` of theirs."""
    names = {number_of(user.get(of)): str(user.get("username")) for user in users}
    pairs = ((number_of(row.get(to)), number_of(row.get(by))) for row in rows)
    return [
        (key, names[user]) for key, user in pairs if key is not None and user is not None and user in names
    ]

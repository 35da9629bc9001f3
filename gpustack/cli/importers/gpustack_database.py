"""Reads GPUStack 0.7 or 2.x from its database, which is not changed: SQLite read-only, PostgreSQL and MySQL too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from gpustack.cli.imported import Doc, Imported, ImportFault
from gpustack.cli.importers.gpustack import Installation, convert
from gpustack.cli.installation import file_of
from gpustack.store.database import open_database
from gpustack.text import said_by

_MOST_ROWS = 10_000
_LONGEST_JSON = 1 << 20
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
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.DatabaseError as error:
        reason = said_by(error.orig or error)
        raise ImportFault(f"{path} cannot be read as a database of GPUStack: {reason}") from error
    finally:
        engine.dispose()


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
        found = [dict(row._mapping) for row in self._connection.execute(query)]
        return [
            {name: _value(value) for name, value in row.items()}
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
    by_id = {row.get("id"): str(row.get("username")) for row in users}
    by_principal = {row.get("principal_id"): str(row.get("username")) for row in users}
    links = [
        (row.get("route_id"), by_id.get(row.get("user_id"))) for row in tables.rows("modelrouteuserlink")
    ]
    links += [
        (row.get("route_id"), by_principal.get(row.get("principal_id")))
        for row in tables.rows("model_route_principals")
    ]
    if "model_routes" not in tables.names:
        links += [
            (row.get("model_id"), by_id.get(row.get("user_id"))) for row in tables.rows("modeluserlink")
        ]
    allowed: dict[int, list[str]] = {}
    for key, name in links:
        if isinstance(key, int) and name is not None:
            allowed.setdefault(key, []).append(name)
    return allowed

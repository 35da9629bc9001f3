"""Steps of migrations, each of which does nothing if it was done before.

MySQL cannot roll back DDL: a migration that was killed is run again from its start, and has to skip what it has done.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations


def create_table(name: str, *parts: Any, **options: Any) -> None:
    """As ``op.create_table``."""
    if not _look().has_table(name):
        op.create_table(name, *parts, **options)


def drop_table(name: str) -> None:
    """As ``op.drop_table``."""
    if _look().has_table(name):
        op.drop_table(name)


def create_index(name: str, table: str, columns: list[str]) -> None:
    """As ``op.create_index``."""
    if name not in _indexes(table):
        op.create_index(name, table, columns, unique=False)


def drop_index(name: str, table: str) -> None:
    """As ``op.drop_index``."""
    if _look().has_table(table) and name in _indexes(table):
        op.drop_index(name, table_name=table)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """As ``add_column`` in a batch. A column that may not be null needs a ``server_default``."""
    if column.name not in {found["name"] for found in _look().get_columns(table)}:
        with _batch(table) as batch:
            batch.add_column(column)


def text_default(text: str) -> sa.TextClause:
    """The ``server_default`` of a new column of long text: MySQL takes one only as an expression."""
    return sa.text("('" + text.replace("'", "''") + "')")


def drop_column(table: str, name: str) -> None:
    """As ``drop_column`` in a batch."""
    if name in {found["name"] for found in _look().get_columns(table)}:
        with _batch(table) as batch:
            batch.drop_column(name)


def _batch(table: str) -> AbstractContextManager[BatchOperations]:
    """SQLite may create the table anew, and must not reuse ids in that one either."""
    return op.batch_alter_table(table, table_kwargs={"sqlite_autoincrement": True})


def _indexes(table: str) -> set[str | None]:
    return {found["name"] for found in _look().get_indexes(table)}


def _look() -> sa.Inspector:
    return sa.inspect(op.get_bind())

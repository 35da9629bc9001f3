"""Column types that behave alike on every kind of database."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite assigns ids only to an ``INTEGER PRIMARY KEY``."""

Count = sa.BigInteger()
Real = sa.Double[float]()
Flag = sa.Boolean(create_constraint=False)
ShortText = sa.String(64)
"""Enumerations and similar short words: a new value needs no migration."""

LONGEST_NAME = 255
Name = sa.String(LONGEST_NAME).with_variant(
    mysql.VARCHAR(LONGEST_NAME, collation="utf8mb4_bin"), "mysql", "mariadb"
)
"""Text that is unique or indexed, compared exactly: by default ``A`` equals ``a`` in MySQL."""

LongText = sa.Text().with_variant(mysql.LONGTEXT(collation="utf8mb4_bin"), "mysql", "mariadb")
"""Text of any length, and JSON: MySQL's ``TEXT`` ends at 64 KiB."""


class Utc(sa.TypeDecorator[datetime]):
    """An aware instant in UTC with microseconds. Naive ones are refused."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[datetime]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.DateTime(timezone=True))
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the instant {value} names no time zone")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

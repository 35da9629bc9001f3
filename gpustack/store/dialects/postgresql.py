"""PostgreSQL 13 or later, through psycopg."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from gpustack.errors import GpustackError, Invalid, Unavailable
from gpustack.store import database_server
from gpustack.store.dialect import Connections, PoolSettings, merged

LEAST = (13,)
_MIGRATION_KEY = 7_127_413_003
"""Key of the advisory lock that serialises migrations: an arbitrary number."""

_DEFAULTS: dict[str, Any] = {
    "application_name": "gpustack",
    "client_encoding": "utf8",  # else a server of SQL_ASCII answers in bytes, to the driver's own questions too
    "connect_timeout": database_server.CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_PATIENT = (f"SET lock_timeout = '{database_server.MIGRATION_SECONDS}s'",)
_QUICK = (
    f"SET statement_timeout = '{database_server.STATEMENT_SECONDS}s'",
    f"SET lock_timeout = '{database_server.LOCK_SECONDS}s'",
    f"SET idle_in_transaction_session_timeout = '{database_server.IDLE_SECONDS}s'",
)
_READING = (*_QUICK, "SET default_transaction_read_only = on")


class PostgreSql:
    """Parameters of the URL (``sslmode``, ``sslrootcert`` …) are libpq's, passed on as they are."""

    shared = True
    clock = "(extract(epoch from clock_timestamp()) * 1000)::bigint"

    def open(self, url: sa.URL, pool: PoolSettings) -> Connections:
        target = database_server.driven(url, "psycopg", install="psycopg[binary]")
        database_server.known(target, _parameters())
        arguments = {name: value for name, value in _DEFAULTS.items() if name not in url.query}
        writing = PoolSettings(size=database_server.WRITERS, overflow=0, timeout=pool.timeout)

        def engine(settings: Sequence[str], pooled: PoolSettings | None) -> sa.Engine:
            return database_server.engine(
                target, arguments, database_server.statements(*settings), pool=pooled, echo=pool.echo
            )

        return Connections(
            place=database_server.place(url),
            write=engine(_QUICK, writing),
            read=engine(_READING, pool),
            slow=engine(_PATIENT, None),
        )

    def check(self, conn: sa.Connection, place: str) -> None:
        found, text = database_server.version(conn.dialect.server_version_info or ())
        if found < LEAST:
            raise database_server.too_old(place, "PostgreSQL", text, "PostgreSQL 13")
        encoding = conn.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise Invalid(
                f"The database {place} keeps text as {encoding}: create it anew with ENCODING 'UTF8'"
            )

    @contextmanager
    def migrating(self, connections: Connections) -> Iterator[sa.Connection]:
        with connections.slow.begin() as conn:
            conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_KEY})")
            yield conn

    @contextmanager
    def snapshot(self, connections: Connections) -> Iterator[sa.Connection]:
        with connections.slow.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
            yield conn

    def upsert(
        self, table: sa.Table, *, key: Sequence[str], adding: Sequence[str], replacing: Sequence[str]
    ) -> sa.Insert:
        statement = postgresql.insert(table)
        return statement.on_conflict_do_update(
            index_elements=list(key),
            set_=merged(table, statement.excluded, adding, replacing),
        )

    def next_id(self, conn: sa.Connection, table: sa.Table) -> int:
        sequence = conn.execute(_SEQUENCE, {"name": table.name}).scalar()
        last, called = conn.exec_driver_sql(f"SELECT last_value, is_called FROM {sequence}").one()
        return int(last) + bool(called)

    def set_next_id(self, conn: sa.Connection, table: sa.Table, number: int) -> None:
        conn.execute(
            sa.text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :number, false)"),
            {"name": table.name, "number": max(number, self.next_id(conn, table))},
        )

    def fault(self, place: str, cause: Any) -> GpustackError | None:
        state = getattr(cause, "sqlstate", None)
        if state is None:
            return _connecting(place, str(cause)) if type(cause).__name__ == "OperationalError" else None
        for states, sentence in _STATES.items():
            if state in states or state[:2] in states:
                return sentence(place, cause)
        return None


_SEQUENCE = sa.text("SELECT pg_get_serial_sequence(:name, 'id')")
_STATES = {
    ("28",): database_server.denied,
    ("3D",): database_server.absent,
    ("25006", "42501"): database_server.forbidden,
    ("53100",): database_server.full,
    ("55P03", "40001", "40P01", "57014", "53300", "25P03"): database_server.busy,
    ("08", "57"): database_server.unreachable,
}
_SAID = (
    ("password", database_server.denied),
    ("authentication failed", database_server.denied),
    ("pg_hba", database_server.denied),
    ("does not exist", database_server.absent),
    ("certificate", database_server.insecure),
    ("SSL", database_server.insecure),
    ("sslmode", database_server.insecure),
    ("too many", database_server.busy),
)


def _parameters() -> set[str]:
    from psycopg.pq import Conninfo

    return {option.keyword.decode() for option in Conninfo.get_defaults()}


def _connecting(place: str, said: str) -> Unavailable:
    """The error for a failed connection, for which libpq has no code but only a text."""
    if 'role "' in said and "does not exist" in said:
        return database_server.denied(place, said)
    # "certificate file … does not exist" is a matter of TLS, not a missing database.
    if "certificate file" in said:
        return database_server.insecure(place, said)
    for words, sentence in _SAID:
        if words in said:
            return sentence(place, said)
    return database_server.unreachable(place, said)

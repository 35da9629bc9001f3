"""MySQL 8.0 and MariaDB 10.6 or later, through PyMySQL."""

from __future__ import annotations

import hashlib
import inspect
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from gpustack.errors import GpustackError, Invalid, Unavailable
from gpustack.store import database_server
from gpustack.store.dialect import Connections, PoolSettings, merged

LEAST_MYSQL = (8,)
LEAST_MARIADB = (10, 6)

_SANE = "SET SESSION sql_mode = 'TRADITIONAL', time_zone = '+00:00'"
_QUICK = (
    f"{_SANE}, innodb_lock_wait_timeout = {database_server.LOCK_SECONDS}, "
    f"wait_timeout = {database_server.IDLE_SECONDS}",
)
_READING = (_SANE, "SET SESSION TRANSACTION READ ONLY")
_MODES = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
_TRUE = ("1", "true", "yes", "on")
_FILES = ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key")


class MySql:
    """TLS parameters of the URL are MySQL's own: ``ssl_mode``, ``ssl_ca``, ``ssl_cert``, ``ssl_key`` …"""

    shared = True
    # sysdate is the moment itself, now() that of the statement's start; the session counts in UTC
    clock = "cast(unix_timestamp(sysdate(6)) * 1000 as signed)"

    def open(self, url: sa.URL, pool: PoolSettings) -> Connections:
        target = database_server.driven(url, "pymysql", install="PyMySQL")
        target, tls = _tls(target)
        database_server.known(target, _parameters())
        arguments: dict[str, Any] = {
            "connect_timeout": database_server.CONNECT_SECONDS,
            "charset": "utf8mb4",
            **tls,
        }
        arguments = {name: value for name, value in arguments.items() if name not in target.query}
        bounded = {
            "read_timeout": database_server.STATEMENT_SECONDS,
            "write_timeout": database_server.STATEMENT_SECONDS,
        }

        def engine(settings: Sequence[str], pooled: PoolSettings | None) -> sa.Engine:
            given = arguments if pooled is None else {**bounded, **arguments}
            return database_server.engine(
                target, given, database_server.statements(*settings), pool=pooled, echo=pool.echo
            )

        return Connections(
            place=database_server.place(url),
            write=engine(
                _QUICK, PoolSettings(size=database_server.WRITERS, overflow=0, timeout=pool.timeout)
            ),
            read=engine(_READING, pool),
            slow=engine((_SANE,), None),
        )

    def check(self, conn: sa.Connection, place: str) -> None:
        maria = bool(getattr(conn.dialect, "is_mariadb", False))
        found, text = database_server.version(conn.dialect.server_version_info or ())
        if maria and found < LEAST_MARIADB:
            raise database_server.too_old(place, "MariaDB", text, "MariaDB 10.6")
        if not maria and found < LEAST_MYSQL:
            raise database_server.too_old(place, "MySQL", text, "MySQL 8.0")

    @contextmanager
    def migrating(self, connections: Connections) -> Iterator[sa.Connection]:
        # Named locks are the whole server's and end with the connection; DDL here ends transactions.
        name = f"gpustack-{hashlib.sha256(str(connections.write.url.database).encode()).hexdigest()[:32]}"
        with connections.slow.connect() as conn:
            got = conn.execute(
                sa.text("SELECT GET_LOCK(:name, :seconds)"),
                {"name": name, "seconds": database_server.MIGRATION_SECONDS},
            ).scalar()
            if got != 1:
                raise Unavailable(
                    f"The database {connections.place} is being upgraded by another server: try again when that"
                    " is done"
                )
            conn.commit()
            with conn.begin():
                yield conn
            conn.execute(sa.text("SELECT RELEASE_LOCK(:name)"), {"name": name})

    @contextmanager
    def snapshot(self, connections: Connections) -> Iterator[sa.Connection]:
        with connections.slow.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
            conn.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            yield conn

    def upsert(
        self, table: sa.Table, *, key: Sequence[str], adding: Sequence[str], replacing: Sequence[str]
    ) -> sa.Insert:
        statement = mysql.insert(table)
        return statement.on_duplicate_key_update(merged(table, statement.inserted, adding, replacing))

    def next_id(self, conn: sa.Connection, table: sa.Table) -> int:
        if not getattr(conn.dialect, "is_mariadb", False):
            conn.exec_driver_sql("SET SESSION information_schema_stats_expiry = 0")  # else a day old
        query = sa.text(
            "SELECT auto_increment FROM information_schema.tables"
            " WHERE table_schema = database() AND table_name = :name"
        )
        return int(conn.execute(query, {"name": table.name}).scalar() or 1)

    def set_next_id(self, conn: sa.Connection, table: sa.Table, number: int) -> None:
        if number > self.next_id(conn, table):
            conn.exec_driver_sql(f"ALTER TABLE {table.name} AUTO_INCREMENT = {int(number)}")

    def fault(self, place: str, cause: Any) -> GpustackError | None:
        code = cause.args[0] if getattr(cause, "args", ()) else None
        if not isinstance(code, int):
            return None
        if code in (2003, 2005, 2006, 2013) and "SSL" in str(cause).upper():
            return database_server.insecure(place, cause)
        for codes, sentence in _CODES.items():
            if code in codes:
                return sentence(place, cause)
        return None


_CODES = {
    (1045, 1698, 1251, 2059, 2061): database_server.denied,
    (1049,): database_server.absent,
    (1044, 1142, 1143, 1227, 1290, 1792, 1836): database_server.forbidden,
    (1021, 1114): database_server.full,
    (1040, 1203, 1205, 1213, 1226): database_server.busy,
    (2026, 3159): database_server.insecure,
    (1053, 1077, 1079, 1080, 2002, 2003, 2005, 2006, 2013, 2014, 2055, 4031, 0): database_server.unreachable,
}


def _parameters() -> set[str]:
    from pymysql.connections import Connection

    return set(inspect.signature(Connection.__init__).parameters) - {"self"}


def _tls(url: sa.URL) -> tuple[sa.URL, dict[str, Any]]:
    """The URL without its TLS parameters, and what they mean to the driver; raises ``Invalid``."""
    given: dict[str, str] = {}
    rest: dict[str, Any] = {}
    for name, value in url.query.items():
        plain = name.replace("-", "_").lower()
        plain = {"sslmode": "ssl_mode"}.get(plain, plain)
        if plain == "ssl" or plain.startswith("ssl_"):
            given[plain] = value if isinstance(value, str) else value[-1]
        else:
            rest[name] = value
    unknown = set(given) - {"ssl", "ssl_mode", "ssl_cipher", "ssl_check_hostname", *_FILES}
    if unknown:
        raise Invalid(
            f"--database-url has TLS parameters that are not known: {', '.join(sorted(unknown))}; known are"
            " ssl_mode, ssl_ca, ssl_capath, ssl_cert, ssl_key, ssl_cipher, ssl_check_hostname"
        )
    mode = _mode(given)
    if mode == "DISABLED":
        return url.set(query=rest), {"ssl_disabled": True}
    if mode == "PREFERRED":  # the driver encrypts where the server can
        return url.set(query=rest), {}
    return url.set(query=rest), {"ssl": _context(mode, given)}


def _mode(given: Mapping[str, str]) -> str:
    if "ssl_mode" in given:
        mode = given["ssl_mode"].upper().replace("-", "_")
        mode = {
            "DISABLE": "DISABLED",
            "PREFER": "PREFERRED",
            "REQUIRE": "REQUIRED",
            "VERIFY_FULL": "VERIFY_IDENTITY",
        }.get(mode, mode)
        if mode not in _MODES:
            raise Invalid(f"ssl_mode in --database-url must be one of {', '.join(_MODES)}")
        return mode
    if "ssl_ca" in given or "ssl_capath" in given:
        checked = given.get("ssl_check_hostname", "true").lower() in _TRUE
        return "VERIFY_IDENTITY" if checked else "VERIFY_CA"
    if given.get("ssl", "").lower() in _TRUE or any(name.startswith("ssl_") for name in given):
        return "REQUIRED"
    return "DISABLED" if "ssl" in given else "PREFERRED"


def _context(mode: str, given: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=given.get("ssl_ca"), capath=given.get("ssl_capath"))
        # Certificates that MySQL makes for itself break rules that Python 3.13 begins to check.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = mode == "VERIFY_IDENTITY"
        context.verify_mode = ssl.CERT_NONE if mode == "REQUIRED" else ssl.CERT_REQUIRED
        if "ssl_cert" in given:
            context.load_cert_chain(given["ssl_cert"], given.get("ssl_key"))
        if "ssl_cipher" in given:
            context.set_ciphers(given["ssl_cipher"])
    except (OSError, ValueError) as error:
        named = ", ".join(f"{name}={given[name]}" for name in _FILES if name in given)
        raise Invalid(f"The TLS files in --database-url cannot be used ({error}): {named}") from error
    return context

"""What PostgreSQL and MySQL share, being servers: URLs, drivers, engines and error messages."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from gpustack.errors import Invalid, Unavailable

from .dialect import RETRY_AFTER, PoolSettings, told_by

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
LOCK_SECONDS = 10
IDLE_SECONDS = 15
"""Seconds for which a GPUStack server that is paused within a transaction can block the others."""
MIGRATION_SECONDS = 600
WRITERS = 3
"""Connections that write: one each for records, for leases and for the registry, so that none waits for another."""

_RECYCLE = 1800

Settle = Callable[[Any], None]
"""Prepares a new connection of the driver (DBAPI)."""


def place(url: sa.URL) -> str:
    """The URL without password and parameters."""
    return sa.URL.create(
        url.get_backend_name(), url.username, None, url.host, url.port, url.database
    ).render_as_string()


def driven(url: sa.URL, driver: str, *, install: str) -> sa.URL:
    """``url`` for ``driver``; raises ``Invalid`` when the driver is missing or the URL names no database."""
    backend = url.get_backend_name()
    given = url.drivername.partition("+")[2]
    if given not in ("", driver):
        raise Invalid(f"--database-url asks for the driver {given!r}: leave it out, write {backend}://")
    try:
        importlib.import_module(driver)
    except ImportError as error:
        raise Invalid(
            f"--database-url names {backend}, but its driver {driver} cannot be loaded ({told_by(error)}):"
            f" pip install '{install}'"
        ) from error
    if not url.database:
        raise Invalid(f"--database-url names no database: {backend}://user:password@host:port/db_name")
    backend = "mysql" if backend == "mariadb" else backend
    return url.set(drivername=f"{backend}+{driver}")


def known(url: sa.URL, names: Collection[str]) -> None:
    """Raise ``Invalid`` that names the parameters of ``url`` that its driver does not know."""
    unknown = sorted(set(url.query) - set(names))
    if unknown:
        raise Invalid(
            f"--database-url has parameters that {url.get_backend_name()} does not know: {', '.join(unknown)}"
        )


def engine(
    url: sa.URL, arguments: dict[str, Any], settle: Settle, *, pool: PoolSettings | None, echo: bool
) -> sa.Engine:
    """An engine that checks a pooled connection before it uses it; without ``pool`` connections are not kept."""
    options: dict[str, Any] = {"poolclass": NullPool}
    if pool is not None:
        options = {
            "pool_size": pool.size,
            "max_overflow": pool.overflow,
            "pool_timeout": pool.timeout,
            "pool_pre_ping": True,
            "pool_recycle": _RECYCLE,
        }
    try:
        made = sa.create_engine(
            url,
            connect_args=arguments,
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            echo=echo,
            **options,
        )
    except (sa.exc.ArgumentError, ValueError, TypeError) as error:
        raise Invalid(f"--database-url cannot be used: {told_by(error)}") from error

    @sa.event.listens_for(made, "connect")
    def _settle(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        settle(connection)

    return made


def statements(*lines: str) -> Settle:
    """A function that executes ``lines`` on a new connection."""

    def settle(connection: Any) -> None:
        cursor = connection.cursor()
        for line in lines:
            cursor.execute(line)
        cursor.close()
        connection.commit()

    return settle


# -- errors by their cause; drivers do not include the password in their messages


def _error(sentence: str) -> Callable[[str, object], Unavailable]:
    """Makes the error from the name of the database and the exception of the driver."""

    def error(place: str, cause: object) -> Unavailable:
        return Unavailable(sentence.format(place=place, cause=told_by(cause)), RETRY_AFTER)

    return error


unreachable = _error(
    "The database {place} cannot be reached ({cause}): look whether it runs, and at host and port in --database-url"
)
denied = _error(
    "The database {place} refuses user and password ({cause}): change them in --database-url, special characters"
    " percent-encoded (%40 for @, %25 for %)"
)
absent = _error("The database {place} does not exist ({cause}): create it, or name another in --database-url")
forbidden = _error(
    "The database {place} cannot be written ({cause}): grant the user of --database-url all rights on it, and name a"
    " server that takes writes"
)
insecure = _error(
    "No TLS connection to the database {place} ({cause}): look at the TLS parameters in --database-url"
)
busy = _error("The database {place} is busy ({cause}): try again")
full = _error("The disk of the database {place} is full ({cause}): free some space there")


def too_old(place: str, product: str, found: str, least: str) -> Invalid:
    return Invalid(f"The database {place} is {product} {found}; gpustack needs {least} or later: upgrade it")


def version(parts: Sequence[Any]) -> tuple[tuple[int, ...], str]:
    """The numbers of a version, and the version as text."""
    numbers = tuple(part for part in parts if isinstance(part, int))
    return numbers, ".".join(map(str, numbers))

"""URLs as users write them, and what is said when a database cannot be used."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import trio

from gpustack.domain.access import User
from gpustack.errors import Invalid, Unavailable
from gpustack.store import StoreSettings, open_store
from gpustack.store.database import open_database
from gpustack.store.dialect import PoolSettings
from tests.child import environment
from tests.databases import PASSWORD, Server, running

from .conftest import Clock, opening
from .proxy import proxy

SECRET = "hush-hush"


async def refused(url: str, clock: Clock) -> str:
    """The sentence with which a start on ``url`` ends; never with a password in it."""
    with pytest.raises((Unavailable, Invalid)) as caught:
        store = await open_store(StoreSettings(data_dir="unused", url=url), clock)
        store.close()
    said = str(caught.value)
    assert SECRET not in said and PASSWORD not in said
    assert "\n" not in said
    return said


async def test_a_wrong_password_is_named(server: Server, clock: Clock) -> None:
    said = await refused(server.url("test", password=SECRET), clock)
    assert "refuses user and password" in said and "--database-url" in said


async def test_a_database_that_is_not_there_is_named(server: Server, clock: Clock) -> None:
    said = await refused(server.url("nowhere"), clock)
    assert "/nowhere does not exist" in said and "create it" in said


async def test_a_host_where_nobody_listens_is_named(server: Server, clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    said = await refused(server.url("test", port=port), clock)
    assert f"127.0.0.1:{port}/test cannot be reached" in said and "host and port in --database-url" in said
    assert "Errno" in said or "Connection refused" in said
    assert "(2003" not in said, "what a person cannot read of a driver's error is left out"


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
async def test_a_host_that_does_not_exist_is_named(scheme: str, clock: Clock) -> None:
    said = await refused(f"{scheme}://me:{SECRET}@host.invalid/db", clock)
    assert f"{scheme}://me@host.invalid/db cannot be reached" in said


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:pass@word@host/db", "%40"),
        ("mysql://host", "names no database"),
        ("postgresql+asyncpg://host/db", "leave it out, write postgresql://"),
        ("mysql+mysqldb://host/db", "leave it out, write mysql://"),
        ("mysql://h/db?ssl_mode=SOMETIMES", "ssl_mode in --database-url must be one of DISABLED"),
        ("mysql://h/db?ssl_ca=/no/such/file.pem", "ssl_ca=/no/such/file.pem"),
        ("mysql://h/db?ssl_crt=/x", "ssl_crt"),
        ("mysql://h/db?unheard_of=1", "unheard_of"),
        ("postgresql://h/db?unheard_of=1", "unheard_of"),
        ("oracle://h/db", "it may be sqlite, postgresql or mysql"),
    ],
)
async def test_a_url_that_cannot_be_used_is_refused(url: str, words: str, clock: Clock) -> None:
    assert words in await refused(url, clock)


def plain(server: Server) -> str:
    """MySQL encrypts by itself, and then nobody in between can change a word."""
    return "" if server.kind == "postgresql" else "?ssl_mode=DISABLED"


async def test_a_server_that_is_too_old_is_refused(server: Server, clock: Clock) -> None:
    """Its answer passes through a proxy that makes another version of it."""
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW server_version" if server.kind == "postgresql" else "SELECT version()")
        version = cursor.fetchone()[0].split(" ")[0].split("-")[0]
    old, product, least = {
        "postgresql": ("12", "PostgreSQL 12", "PostgreSQL 13 or later"),
        "mysql": ("5.9", "MySQL 5.9", "MySQL 8.0 or later"),
        "mariadb": ("10.04", "MariaDB 10.4", "MariaDB 10.6 or later"),
    }[server.kind]
    url = server.create()
    name = url.rpartition("/")[2]
    faked = old + version[len(old) :]
    with proxy(server.port, version.encode(), faked.encode()) as between:
        said = await refused(server.url(name, port=between.port, query=plain(server)), clock)
    server.drop(url)
    assert f"is {product}" in said and least in said and "upgrade it" in said


async def test_versions_we_work_with_are_taken(server: Server, server_url: str, clock: Clock) -> None:
    """PostgreSQL 13, MySQL 8.0 and MariaDB 10.6 as far as their answer goes."""
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW server_version" if server.kind == "postgresql" else "SELECT version()")
        version = cursor.fetchone()[0].split(" ")[0].split("-")[0]
    least = {"postgresql": "13", "mysql": "8", "mariadb": "10.06"}[server.kind]
    faked = least + version[len(least) :]
    name = server_url.rpartition("/")[2]
    with proxy(server.port, version.encode(), faked.encode()) as between:
        store = await open_store(
            StoreSettings(data_dir="unused", url=server.url(name, port=between.port, query=plain(server))),
            clock,
        )
        store.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_is_not_utf8_is_refused(server: Server, clock: Clock, encoding: str) -> None:
    if server.kind != "postgresql":
        return  # its tables say for themselves how they keep text
    server.execute(
        f"CREATE DATABASE latin ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    said = await refused(server.url("latin"), clock)
    server.execute("DROP DATABASE latin")
    assert f"keeps text as {encoding}" in said and "ENCODING 'UTF8'" in said


async def test_a_user_who_may_not_make_tables_is_told(server: Server, server_url: str, clock: Clock) -> None:
    name = server_url.rpartition("/")[2]
    if server.kind == "postgresql":
        server.execute(
            f"CREATE ROLE weak LOGIN PASSWORD '{PASSWORD}'", "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            database=name,
        )  # fmt: skip
    else:
        server.execute(
            f"CREATE USER weak@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT SELECT ON {name}.* TO weak@'127.0.0.1'",
        )
    said = await refused(server_url.replace("//gpustack:", "//weak:"), clock)
    server.execute("DROP ROLE weak" if server.kind == "postgresql" else "DROP USER weak@'127.0.0.1'")
    assert "cannot be written" in said and "grant the user of --database-url" in said


@pytest.mark.parametrize(
    ("url", "module", "install"),
    [("postgresql://h/db", "psycopg", "psycopg[binary]"), ("mysql://h/db", "pymysql", "PyMySQL")],
)
async def test_a_missing_driver_is_named_with_its_command(url: str, module: str, install: str) -> None:
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from gpustack.store.database import open_database\n"
        "from gpustack.errors import Invalid\n"
        f"try: open_database({url!r})\n"
        "except Invalid as error: print(error)"
    )
    done = await trio.run_process([sys.executable, "-c", program], env=environment(), capture_stdout=True)
    said = done.stdout.decode()
    assert f"its driver {module} cannot be loaded" in said and f"pip install '{install}'" in said


async def test_drivers_are_loaded_only_for_who_uses_them(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom gpustack.store.database import open_database\n"
        f"open_database('sqlite:///{tmp_path}/d.db').close()\n"
        "print([name for name in ('psycopg', 'pymysql', 'cryptography') if name in sys.modules])"
    )
    done = await trio.run_process([sys.executable, "-c", program], env=environment(), capture_stdout=True)
    assert done.stdout.strip() == b"[]"


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def secure(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with a certificate of its own for 127.0.0.1."""
    with running(request.param, tls=True) as server:
        yield server


CIPHER = {
    "postgresql": "select cipher from pg_stat_ssl where pid = pg_backend_pid()",
    "mariadb": "select variable_value from information_schema.session_status where variable_name = 'Ssl_cipher'",
}


async def test_tls_parameters_are_passed_on(secure: Server, clock: Clock) -> None:
    trusted = secure.folder / "tls" / "cert.pem"
    postgresql = secure.kind == "postgresql"
    verified = f"?sslmode=verify-full&sslrootcert={trusted}" if postgresql else f"?ssl_ca={trusted}"
    required = "?sslmode=require" if postgresql else "?ssl-mode=REQUIRED"
    plain = "?sslmode=disable" if postgresql else "?ssl_mode=DISABLED"
    url = secure.create()
    for query, encrypted in ((verified, True), (required, True), (plain, False)):
        async with opening(url + query, clock) as store:
            ciphers = await store.query(
                lambda conn: conn.execute(sa.text(CIPHER[secure.kind])).scalars().all()
            )
            assert bool(any(ciphers)) is encrypted, query
    secure.drop(url)


async def test_a_certificate_that_is_not_trusted_is_refused(
    secure: Server, clock: Clock, tmp_path: Path
) -> None:
    from tests.databases import _certificates

    _certificates(tmp_path / "other")
    other = tmp_path / "other" / "cert.pem"
    postgresql = secure.kind == "postgresql"
    query = f"?sslmode=verify-ca&sslrootcert={other}" if postgresql else f"?ssl_mode=VERIFY_CA&ssl_ca={other}"
    said = await refused(secure.url("test", query=query), clock)
    assert said.startswith("No TLS connection to the database") and "TLS parameters in --database-url" in said


async def test_a_server_without_tls_is_refused_where_tls_is_asked_for(server: Server, clock: Clock) -> None:
    if server.kind == "mysql":
        return  # it always has a certificate, which it makes for itself
    query = "?sslmode=require" if server.kind == "postgresql" else "?ssl_mode=REQUIRED"
    said = await refused(server.url("test", query=query), clock)
    assert said.startswith("No TLS connection to the database")


async def test_the_pool_is_as_large_as_told(server_url: str, clock: Clock) -> None:
    settings = StoreSettings(
        data_dir="unused", url=server_url, pool=PoolSettings(size=2, overflow=1, timeout=0.01)
    )
    store = await open_store(settings, clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        read = store._database.read
        with (
            read.connect(),
            read.connect(),
            read.connect(),
            pytest.raises(Unavailable, match="QueuePool limit"),
        ):
            await store.query(lambda conn: None)
        assert await store.query(lambda conn: conn.execute(sa.text("select 1")).scalar()) == 1
        nursery.cancel_scope.cancel()


async def test_statements_are_logged_when_asked_for_and_values_never(
    url: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sqlalchemy.engine")
    store = await open_store(StoreSettings(data_dir="unused", url=url, pool=PoolSettings(echo=True)), clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await store.write(lambda tx: tx.insert(User(username="ada", hashed_password=SECRET)))
        nursery.cancel_scope.cancel()
    assert "INSERT INTO users" in caplog.text
    assert SECRET not in caplog.text


def test_a_place_is_shown_without_password_and_parameters() -> None:
    database = open_database(f"postgresql://me:{SECRET}@db.example:5433/x?sslmode=require&password={SECRET}")
    assert database.place == "postgresql://me@db.example:5433/x"
    assert SECRET not in repr(database.connections)

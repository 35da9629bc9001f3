"""Real database servers for tests: started from an empty directory, unprivileged, on a loopback port of their own.

``python -m tests.databases`` starts each that this machine has and says its version.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs

from tests.needs import missing, requires
from tests.ports import free_port

KINDS = ("sqlite", "postgresql", "mysql", "mariadb")
SERVERS = KINDS[1:]
USER = "gpustack"
PASSWORD = "p@ss:w/rd%"
"""With every character that a URL has to escape."""

# Nobody may not look into root's home.
_CACHE = Path.home() / ".cache" if os.geteuid() else Path("/var/cache")
MYSQL_TREE = Path(os.environ.get("GPUSTACK_TEST_MYSQL") or _CACHE / "gpustack-tests/mysql")
"""Where MySQL lies unpacked: no release of Debian has it, so that it comes from the next one."""
_UNPACK = Path(__file__).resolve().parent / "unpack-mysql"

_numbers = itertools.count(1)


@attrs.define(eq=False)
class Server:
    """One running server with a data directory that lasts over ``stop`` and ``start``."""

    kind: str
    folder: Path
    port: int
    _command: Sequence[str]
    _connect: Callable[[Server, str], Any]
    _stop_signal: signal.Signals
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                **unprivileged(),
            )
        self._wait(60.0)

    def stop(self, how: signal.Signals | None = None) -> None:
        """End it, quickly but in order, or by the signal given; wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(how or self._stop_signal)
            self._process.wait(30)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def connect(self, database: str = "") -> Any:
        """A plain connection of the driver, as the administrator; it commits by itself."""
        return self._connect(self, database)

    def execute(self, *statements: str, database: str = "") -> None:
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def create(self) -> str:
        """The URL of a new empty database."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, with whoever is still connected to it."""
        name = url.rpartition("/")[2].partition("?")[0]
        self.execute(f"DROP DATABASE IF EXISTS {name}{' WITH (FORCE)' * (self.kind == 'postgresql')}")

    def url(
        self, database: str, *, password: str = PASSWORD, port: int | None = None, query: str = ""
    ) -> str:
        """As a user would write it."""
        scheme = "postgresql" if self.kind == "postgresql" else "mysql"
        return f"{scheme}://{USER}:{quote(password, safe='')}@127.0.0.1:{port or self.port}/{database}{query}"

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.kind} ended at once:\n{(self.folder / 'log').read_text()[-2000:]}")
            try:
                self._knock()
                self.connect().close()
                return
            except Exception:  # drivers raise what they like while a server starts
                if time.monotonic() > end:
                    raise
            time.sleep(0.02)

    def _knock(self) -> None:
        """Raise OSError while nobody listens: PyMySQL would leave its socket open."""
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        if self.kind != "postgresql":
            with socket.socket(socket.AF_UNIX) as knocking:
                knocking.connect(str(self.folder / "s"))


def unprivileged() -> dict[str, Any]:
    """How to run as nobody: databases refuse to run as root."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def running(kind: str, *, tls: bool = False) -> Iterator[Server]:
    """A server of that kind; the test is skipped, or in CI fails, where it is not installed.

    With ``tls`` it speaks TLS by the certificate in ``server.folder / "tls"``, made for 127.0.0.1.
    """
    make = {"postgresql": _postgresql, "mysql": _mysql, "mariadb": _mariadb}[kind]
    folder = Path(tempfile.mkdtemp(prefix=f"gpustack-{kind}-"))
    try:
        _give_away(folder)
        if tls:
            _certificates(folder / "tls")
        server = make(folder, tls)
        server.start()
        try:
            if kind != "postgresql":
                server.execute(
                    f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
                    f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1'",
                )
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _give_away(path: Path) -> None:
    if not os.geteuid():
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def _initialise(folder: Path, command: Sequence[str]) -> None:
    with (folder / "log").open("ab") as log:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            check=False,
            **unprivileged(),
        )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{(folder / 'log').read_text()[-2000:]}")


def _certificates(folder: Path) -> None:
    """A certificate for 127.0.0.1 that vouches for itself."""
    folder.mkdir()
    openssl = requires("openssl")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    (folder / "key.pem").chmod(0o600)
    for path in (folder, *folder.iterdir()):
        _give_away(path)


# -- PostgreSQL


def _postgresql(folder: Path, tls: bool) -> Server:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    binary = found[-1] if found else Path(requires("postgres", apt="postgresql")).resolve()
    data, port = folder / "data", free_port()
    (folder / "password").write_text(PASSWORD)
    _give_away(folder / "password")
    _initialise(
        folder,
        [str(binary.with_name("initdb")), "-D", str(data), "-U", USER, "-A", "scram-sha-256",
         f"--pwfile={folder / 'password'}", "--no-sync", "-E", "UTF8", "--locale=C"],
    )  # fmt: skip
    settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=100"]
    if tls:
        settings += ["ssl=on", f"ssl_cert_file={folder}/tls/cert.pem", f"ssl_key_file={folder}/tls/key.pem"]
    command = [str(binary), "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    command += [part for setting in settings for part in ("-c", setting)]
    return Server("postgresql", folder, port, command, _connect_postgresql, signal.SIGINT)


def _connect_postgresql(server: Server, database: str) -> Any:
    import psycopg

    return psycopg.connect(
        host="127.0.0.1",
        port=server.port,
        user=USER,
        password=PASSWORD,
        dbname=database or "postgres",
        autocommit=True,
    )


# -- MySQL and MariaDB

_COMMON = (
    "--skip-log-bin", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0", "--skip-name-resolve", "--performance-schema=OFF",
    "--innodb-doublewrite=OFF", "--innodb-flush-method=nosync",
)  # fmt: skip


def _mysql(folder: Path, tls: bool) -> Server:
    root = MYSQL_TREE / "root"
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    if not loader.exists():
        missing(
            f"MySQL is not unpacked in {MYSQL_TREE}", f"{_UNPACK.parent.name}/{_UNPACK.name} {MYSQL_TREE}"
        )
    program = [
        str(loader), "--library-path", str(root / "usr/lib/x86_64-linux-gnu"), str(root / "usr/sbin/mysqld"),
        "--no-defaults", f"--basedir={root / 'usr'}", f"--lc-messages-dir={root / 'usr/share/mysql'}",
        f"--plugin-dir={root / 'usr/lib/mysql/plugin'}", "--innodb-redo-log-capacity=8M",
    ]  # fmt: skip
    _initialise(
        folder,
        [*program, "--initialize-insecure", f"--datadir={folder / 'data'}", "--innodb-flush-method=nosync"],
    )
    return _like_mysql("mysql", folder, [*program, "--mysqlx=0", "--secure-file-priv=NULL"], tls)


def _mariadb(folder: Path, tls: bool) -> Server:
    program = requires("mariadbd", apt="--no-install-recommends mariadb-server-core mariadb-client-core")
    install = requires("mariadb-install-db", apt="mariadb-server-core")
    _initialise(
        folder,
        [install, "--no-defaults", f"--datadir={folder / 'data'}", "--auth-root-authentication-method=normal",
         "--skip-test-db", "--innodb-flush-method=nosync"],
    )  # fmt: skip
    return _like_mysql("mariadb", folder, [program, "--no-defaults"], tls)


def _like_mysql(kind: str, folder: Path, program: Sequence[str], tls: bool) -> Server:
    port = free_port()
    command = [
        *program, f"--datadir={folder / 'data'}", f"--socket={folder / 's'}", f"--port={port}",
        f"--pid-file={folder / 'pid'}", *_COMMON,
    ]  # fmt: skip
    if tls:
        command += [f"--ssl-cert={folder}/tls/cert.pem", f"--ssl-key={folder}/tls/key.pem"]
    return Server(kind, folder, port, command, _connect_mysql, signal.SIGTERM)


def _connect_mysql(server: Server, database: str) -> Any:
    import pymysql

    return pymysql.connect(
        unix_socket=str(server.folder / "s"), user="root", database=database or None, autocommit=True
    )


if __name__ == "__main__":
    for kind in sys.argv[1:] or SERVERS:
        begun = time.monotonic()
        with running(kind) as server, contextlib.closing(server.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT version()")
            print(f"{kind}: {cursor.fetchone()[0]}, ready after {time.monotonic() - begun:.1f} s", flush=True)

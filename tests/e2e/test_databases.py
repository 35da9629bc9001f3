"""A daemon on each kind of database: it serves, bears an outage, is backed up while it runs, and moves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.child import ROOT
from tests.daemon import WITHIN, Daemon, daemon
from tests.databases import SERVERS, Server
from tests.options.spelling import SPELLINGS, spelled

SENTENCE = "Hello! I am a tiny model served by this cluster."


def gpustack(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GPUSTACK_")}
    return subprocess.run(
        [sys.executable, "-m", "gpustack", *argv],
        env={**clean, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def good(*argv: str, **env: str) -> str:
    ran = gpustack(*argv, **env)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def bad(*argv: str, **env: str) -> str:
    """The one line of a failure."""
    ran = gpustack(*argv, **env)
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr
    return ran.stderr


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Server:
    return servers(request.param)


def servers_with_slow(*slow: str) -> pytest.MarkDecorator:
    """Each server, some of them only with ``make test-slow``."""
    marks = {kind: [pytest.mark.slow] * (kind in slow) for kind in SERVERS}
    return pytest.mark.parametrize(
        "server", [pytest.param(kind, marks=marks[kind]) for kind in SERVERS], indirect=True
    )


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    made = server.create()
    yield made
    server.drop(made)


@pytest.fixture(scope="module")
def databases(servers: Callable[[str], Server]) -> Iterator[Callable[[Server], str]]:
    """One database of each server, the same for all who ask."""
    made: dict[str, str] = {}

    def database(server: Server) -> str:
        if server.kind not in made:
            made[server.kind] = server.create()
        return made[server.kind]

    yield database
    for kind, url in made.items():
        servers(kind).drop(url)


@pytest.fixture
def database(server: Server, databases: Callable[[Server], str]) -> str:
    return databases(server)


def add_user(one: Daemon, name: str) -> int:
    return one.call("POST", "/v1/users", {"username": name, "password": "Long_enough_1"})[0]


def key_of(one: Daemon) -> str:
    return str(one.call("POST", "/v1/api-keys", {"name": "tests"})[1]["value"])


def users(one: Daemon, key: str) -> set[str]:
    """Who is there, as seen by a key from outside of this machine's trust."""
    status, answer = one.call(
        "GET", "/v1/users", headers={"authorization": f"Bearer {key}", "x-real-ip": "9.9.9.9"}
    )
    assert status == 200, answer
    return {item["username"] for item in answer["items"]}


@pytest.mark.parametrize(
    ("server", "spelling"),
    [
        pytest.param(
            kind,
            spelling,
            marks=[pytest.mark.slow] * (kind != "postgresql" and spelling != "flag"),
            id=f"{kind}-{spelling}",
        )
        for kind in SERVERS
        for spelling in SPELLINGS
    ],
    indirect=["server"],
)
def test_database_url_names_the_database_of_the_records(
    server: Server, tmp_path: Path, spelling: str, database: str
) -> None:
    arguments, env = spelled(spelling, tmp_path, {"database_url": database, "disable_worker": True})
    with daemon(tmp_path / "data", *arguments, env=env) as one:
        assert add_user(one, f"by-{spelling}") == 200
    name = database.rpartition("/")[2]
    with contextlib.closing(server.connect(name)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT username FROM users")
        assert f"by-{spelling}" in {row[0] for row in cursor.fetchall()}
    assert not (tmp_path / "data/database.db").exists()


def test_the_variables_of_the_database_bound_the_connections_and_show_the_statements(
    servers: Callable[[str], Server], tmp_path: Path
) -> None:
    """One connection reads, and no second is opened: who comes while it waits is told after a second."""
    server = servers("postgresql")
    url = server.create()
    name = url.rpartition("/")[2]
    env = {
        "GPUSTACK_DATABASE_URL": url,
        "GPUSTACK_DB_POOL_SIZE": "1",
        "GPUSTACK_DB_MAX_OVERFLOW": "0",
        "GPUSTACK_DB_POOL_TIMEOUT": "1",
        "GPUSTACK_DB_ECHO": "true",
    }
    with (
        daemon(tmp_path / "data", "--disable-worker", env=env) as one,
        contextlib.closing(server.connect(name)) as holder,
        contextlib.closing(server.connect(name)) as looker,
        ThreadPoolExecutor() as threads,
    ):
        waiting = (
            f"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{name}'"
        )
        holder.execute("BEGIN; LOCK TABLE model_usages IN ACCESS EXCLUSIVE MODE")
        first = threads.submit(one.call, "GET", "/v1/dashboard/usage")
        one.until(lambda: looker.execute(waiting).fetchone() == (1,), "a query that waits")
        refused = one.call("GET", "/v1/dashboard/usage")
        holder.execute("COMMIT")
        assert first.result(WITHIN)[0] == 200
        assert refused[0] == 503
        assert refused[1]["message"].startswith("All connections for reading the database were busy for 1 s")
        assert "INSERT INTO users" in one.log
    server.drop(url)


@servers_with_slow("mysql")
def test_inference_and_reading_go_on_while_the_database_is_away(
    server: Server, url: str, tmp_path: Path, tiny_model: Path
) -> None:
    with daemon(tmp_path / "data", env={"GPUSTACK_DATABASE_URL": url}) as one:
        assert "database_url" not in one.log, "no warning that the option has no effect"
        model = {"name": "tiny", "source": "local_path", "local_path": str(tiny_model)}
        assert one.call("POST", "/v1/models", {**model, "backend_parameters": ["-c", "512"]})[0] == 200
        (before,) = one.running("tiny")
        key = key_of(one)

        def chat() -> str:
            asked = {"model": "tiny", "messages": [{"role": "user", "content": "Who are you?"}]}
            answer = httpx.post(
                f"{one.url}/v1/chat/completions",
                json=asked,
                headers={"authorization": f"Bearer {key}"},
                timeout=WITHIN,
            )
            assert answer.status_code == 200, answer.text
            return str(answer.json()["choices"][0]["message"]["content"])

        assert chat() == SENTENCE
        server.stop()
        try:
            assert chat() == SENTENCE
            assert [item["name"] for item in one.call("GET", "/v1/models")[1]["items"]] == ["tiny"]
            refused = httpx.post(f"{one.url}/v1/users", json={"username": "bob", "password": "Long_enough_1"})
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert "cannot be reached" in refused.json()["message"]
            one.until(lambda: "Usage counts wait for the database" in one.log, "usage that waits")
        finally:
            server.start()
        one.until(lambda: add_user(one, "cleo") == 200, "writing again")
        assert {item["username"] for item in one.call("GET", "/v1/users")[1]["items"]} == {"admin", "cleo"}
        (after,) = one.running("tiny")
        assert (after["id"], after["pid"]) == (before["id"], before["pid"])
        assert chat() == SENTENCE
        secret = url.rpartition("@")[0].rpartition(":")[2]
        assert secret not in one.log
    assert one.process.returncode == 0


def test_a_start_on_a_database_that_cannot_be_used_ends_with_a_sentence(
    server: Server, tmp_path: Path
) -> None:
    url = server.url("test", password="wrong-one")
    with daemon(tmp_path / "data", env={"GPUSTACK_DATABASE_URL": url}, wait=False) as one:
        assert one.process.wait(WITHIN) != 0
        assert "refuses user and password" in one.log and "Traceback" not in one.log
        assert "wrong-one" not in one.log


@servers_with_slow("mariadb", "mysql")
def test_an_installation_is_backed_up_while_it_runs_and_moves(
    server: Server, url: str, tmp_path: Path
) -> None:
    """SQLite to a backup, from there to SQLite again and to a server, and from the server to a backup."""
    backup, again = tmp_path / "first.backup", tmp_path / "second.backup"
    with daemon(tmp_path / "one") as one:
        assert add_user(one, "bob") == 200
        key = key_of(one)
        said = good("backup", str(backup), "--", f"--data-dir={tmp_path}/one")
        assert said.startswith(f"{backup}\n") and "records are in it" in said
        assert backup.stat().st_mode & 0o777 == 0o600
        assert "in use by another" in bad(
            "restore", str(backup), "--replace", "--", f"--data-dir={tmp_path}/one"
        )
        source = f"sqlite:///{tmp_path}/one/database.db"
        assert "in use by another gpustack" in bad("db", "migrate-from", source, "--to", url)
        assert "is there already" in bad("backup", str(backup), "--", f"--data-dir={tmp_path}/one")
        assert users(one, key) == {"admin", "bob"}
    assert "Restored" in good("restore", str(backup), "--", f"--data-dir={tmp_path}/two")
    with daemon(tmp_path / "two") as two:
        assert users(two, key) == {"admin", "bob"}, "the keys hold: the secrets came along"
        assert add_user(two, "cleo") == 200
    said = good("db", "migrate-from", f"sqlite:///{tmp_path}/two/database.db", GPUSTACK_DATABASE_URL=url)
    assert "Moved" in said
    moved = {"GPUSTACK_DATABASE_URL": url}
    with daemon(tmp_path / "two", env=moved) as three:
        assert users(three, key) == {"admin", "bob", "cleo"}
        good("backup", str(again), "--", f"--data-dir={tmp_path}/two", **moved)
        assert add_user(three, "late") == 200
    assert "--replace" in bad("restore", str(again), "--", f"--data-dir={tmp_path}/two", **moved)
    good("restore", str(again), "--replace", "--", f"--data-dir={tmp_path}/two", **moved)
    with daemon(tmp_path / "two", env=moved) as four:
        assert users(four, key) == {"admin", "bob", "cleo"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup."""
    folder = tmp_path_factory.mktemp("made")
    with daemon(folder / "data") as one:
        assert add_user(one, "bob") == 200
    good("backup", str(folder / "made.backup"), "--", f"--data-dir={folder}/data")
    return folder / "made.backup"


def tampered(made: Path, target: Path, name: str, content: bytes | None) -> Path:
    """The backup with one of its files changed, or left out."""
    with tarfile.open(made, "r:gz") as old, tarfile.open(target, "w:gz") as new:
        for member in old.getmembers():
            data = old.extractfile(member).read()  # type: ignore[union-attr]  # all are files
            if member.name == name:
                if content is None:
                    continue
                data = content
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target


def test_a_newer_program_s_database_is_kept_beside_what_is_restored(made: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    with closing(sqlite3.connect(data / "database.db")) as newer, newer:
        newer.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        newer.execute("CREATE TABLE of_tomorrow (id INTEGER)")
        newer.execute("INSERT INTO alembic_version VALUES ('9999')")
    where = ("--", f"--data-dir={data}")
    assert "written by another or a newer" in bad("restore", str(made), *where)
    assert "database.db.newer" in good("restore", str(made), "--replace", *where)
    with closing(sqlite3.connect(data / "database.db.newer")) as kept:
        assert kept.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
    with closing(sqlite3.connect(data / "database.db")) as restored:
        assert ("admin",) in restored.execute("SELECT username FROM users").fetchall()


def test_a_backup_that_is_not_whole_restores_nothing(made: Path, tmp_path: Path) -> None:
    def refused(backup: Path) -> str:
        said = bad("restore", str(backup), "--", f"--data-dir={tmp_path}/data")
        assert not (tmp_path / "data" / "database.db").exists()
        assert not (tmp_path / "data" / "token").exists()
        return said

    whole = made.read_bytes()
    cut = tmp_path / "cut.backup"
    for length in (0, 10, len(whole) // 2, len(whole) * 9 // 10):
        cut.write_bytes(whole[:length])
        assert "cut.backup" in refused(cut)
    for place in range(500, len(whole) - 500, len(whole) // 10):
        cut.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert "backup" in refused(cut)
    assert "is not what was written" in refused(tampered(made, tmp_path / "1", "token", b"other"))
    assert "is missing" in refused(tampered(made, tmp_path / "2", "jwt_secret_key", None))
    assert "is not what was written" in refused(tampered(made, tmp_path / "3", "database.db", b"x" * 9000))
    with tarfile.open(made) as tar:
        manifest = json.loads(tar.extractfile("backup.json").read())  # type: ignore[union-attr]  # it is one
    for change in ({"format": 2}, {"files": {"../../evil": "0"}}, {"files": None}, {"rows": None, "more": 1}):
        text = json.dumps({**manifest, **change}).encode()
        refused(tampered(made, tmp_path / "4", "backup.json", text))
    assert "No such file" in refused(tmp_path / "nowhere.backup")


def test_secrets_that_differ_are_not_lost_unasked(made: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "token").write_text("mine\n")
    where = ("--", f"--data-dir={data}")
    assert "secrets that differ from those of the backup (token)" in bad("restore", str(made), *where)
    assert (data / "token").read_text() == "mine\n"
    good("restore", str(made), "--replace", *where)
    assert (data / "token").read_text() != "mine\n"
    assert (data / "token").stat().st_mode & 0o777 == 0o600
    assert not [path.name for path in data.iterdir() if path.name.startswith(".")]


def test_what_there_is_not_cannot_be_backed_up_or_moved(tmp_path: Path) -> None:
    target = str(tmp_path / "x.backup")
    assert "There is no database" in bad("backup", target, "--", f"--data-dir={tmp_path}/none")
    assert not (tmp_path / "none").exists() and not Path(target).exists()
    nowhere = f"sqlite:///{tmp_path}/none.db"
    assert "There is no database" in bad("db", "migrate-from", nowhere, "--to", f"sqlite:///{tmp_path}/to.db")
    assert "There is no directory" in bad(
        "backup", str(tmp_path / "no" / "x"), "--", f"--data-dir={tmp_path}"
    )


def test_a_worker_whose_credential_is_newer_than_the_backup_is_let_in_again(tmp_path: Path) -> None:
    """Its server has restored records in which it still has the credential of before."""
    data, made = tmp_path / "data", tmp_path / "backup.tar"
    where = ("--", f"--data-dir={data}")
    with daemon(data) as one:
        one.until(lambda: "Joined: " in one.log, "the worker")
        good("backup", str(made), *where)
    (data / "worker_credential").write_text("gpustack_worker_1_of0another0day\n")
    good("restore", str(made), "--replace", *where)
    with daemon(data) as one:
        one.until(lambda: one.log.count("Joined: ") == 2, "the worker again")
        assert len(one.call("GET", "/v1/workers")[1]["items"]) == 1

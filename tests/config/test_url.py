"""URLs of databases: what is told of their logins without showing them, and the short forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from gpustack.config.url import login_fault, plain_database_url
from gpustack.errors import Invalid
from gpustack.store.database import open_database
from tests.config.loading import faults, loaded


@pytest.mark.attack("secret")
@pytest.mark.parametrize(
    "login",
    [
        "me:Hunter2@Hunter2",
        "me:Hunter2@Hunter2/Hunter2",
        "me:Hunter2/Hunter2@Hunter2",
        "me:Hunter2#@Hunter2",
        "me:Hunter2@Hunter2?x",
        "me:Hunter2@Hunter2:Hunter2",
        "m/e:Hunter2",
    ],
)
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "mysql", "mariadb", "postgresql+psycopg"])
def test_a_password_that_ends_too_early_is_told_with_the_way_to_write_it(scheme: str, login: str) -> None:
    url = f"{scheme}://{login}@db.example:5432/gpustack"
    (fault,) = faults(env={"GPUSTACK_DATABASE_URL": url})
    assert fault.startswith("GPUSTACK_DATABASE_URL: database_url has an @, /") and "%40 for @" in fault
    with pytest.raises(Invalid, match=r"--database-url has an @.*percent-encoded") as caught:
        open_database(url)
    for said in (fault, str(caught.value)):
        assert "Hunter2" not in said


@pytest.mark.parametrize(
    "password", ["p", "p%40ss", "a/b", "a#b", "a?b", "a:b", "100%", "%25", "", "a=b", "[x]", "a+b", "a&b"]
)
def test_other_passwords_are_taken_as_the_driver_takes_them(password: str) -> None:
    url = f"postgresql://me:{password}@db.example:5432/gpustack?sslmode=require&options=a@b"
    assert login_fault(url) is None
    parsed = sa.make_url(url)
    assert (parsed.username, parsed.host, parsed.database) == ("me", "db.example", "gpustack")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////srv/a@b/x@y.db",
        "postgresql://db/gpustack",
        "mysql://me@tenant:p@db/x",
        "postgresql:///x?user=a@b",
    ],
)
def test_what_has_no_login_has_no_fault(url: str) -> None:
    assert login_fault(url) is None


def test_the_short_name_of_postgresql_and_the_home_are_written_out(tmp_path: Path) -> None:
    assert plain_database_url("postgres://h/db", tmp_path) == "postgresql://h/db"
    assert plain_database_url("postgres+psycopg://h/db", tmp_path) == "postgresql+psycopg://h/db"
    assert plain_database_url("postgresql://h/db", tmp_path) == "postgresql://h/db"
    assert plain_database_url("sqlite:///~/x.db", tmp_path) == f"sqlite:///{tmp_path}/x.db"
    assert plain_database_url("sqlite:///x~/x.db", tmp_path) == "sqlite:///x~/x.db"
    env = {"HOME": str(tmp_path), "GPUSTACK_DATABASE_URL": "sqlite:///~/x.db"}
    assert loaded(env=env).options.database_url == f"sqlite:///{tmp_path}/x.db"
    database = open_database("postgres://me:p@127.0.0.1:1/gpustack")
    assert database.dialect.shared and database.place == "postgresql://me@127.0.0.1:1/gpustack"
    database.close()


def test_a_file_in_the_home_is_opened_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    database = open_database("sqlite:///~/deep/x.db")
    database.close()
    assert (tmp_path / "deep/x.db").is_file() and not (tmp_path / "~").exists()


def test_who_becomes_a_worker_by_an_exported_variable_hears_so_first(tmp_path: Path) -> None:
    env = {"GPUSTACK_SERVER_URL": "http://me:Hunter2@10.0.0.5", "GPUSTACK_TOKEN": "a-token-of-the-cluster"}
    found = loaded(env=env, euid=1000)
    assert found.role == "worker"
    assert found.notes[0].startswith(
        "GPUSTACK_SERVER_URL is set, so this is a worker of http://me:***@10.0.0.5 and"
    )
    assert "unset it" in found.notes[0]
    (fault,) = faults(env={"GPUSTACK_SERVER_URL": "http://10.0.0.5"})
    assert fault.startswith("GPUSTACK_SERVER_URL: ") and "without server_url it starts as a server" in fault
    given = loaded("--server-url=http://10.0.0.5", env={"GPUSTACK_TOKEN": "a-token-of-the-cluster"})
    assert not any("unset" in note for note in given.notes)

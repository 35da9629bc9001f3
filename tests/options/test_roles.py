"""Options that make a daemon what it is, in each of their spellings."""

from __future__ import annotations

import ssl
import stat
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.certificates import make_certificate
from tests.child import environment
from tests.daemon import WITHIN, Daemon, daemon
from tests.options.spelling import SPELLINGS, shortly, spelled
from tests.server.feed import Feed, serving

TOKEN = "a-token-that-the-tests-have-chosen"


def workers(one: Daemon) -> dict[str, dict[str, object]]:
    return {item["name"]: item for item in one.call("GET", "/v1/workers")[1]["items"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """It has no worker but those that join."""
    data = tmp_path_factory.mktemp("server") / "data"
    with daemon(data, "--disable-worker", "--token", TOKEN) as one:
        yield one


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_worker_joins_the_server_that_server_url_names(
    server: Daemon, tmp_path: Path, spelling: str
) -> None:
    values = {
        "server_url": f"{server.url}/",
        "token": TOKEN,
        "worker_name": spelling,
        "worker_ip": "127.0.0.3",
        "system_reserved": {"memory": 5, "gpu_memory": 2},
        "data_dir": tmp_path / "data",
    }
    arguments, env = spelled(spelling, tmp_path, values)
    with daemon(tmp_path / "data", *arguments, env=env):
        found = server.until(lambda: workers(server).get(spelling), f"the worker {spelling}")
    assert found["ip"] == "127.0.0.3"
    assert found["system_reserved"] == {"ram": 5 << 30, "vram": 2 << 30}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_disable_worker_leaves_a_server_alone_and_disable_update_check_asks_nobody(
    tmp_path: Path, spelling: str
) -> None:
    with serving(Feed(body=b'{"latest_version": "99.1.0"}')) as feed:
        values = {"disable_worker": True, "disable_update_check": True, "update_check_url": feed.url}
        arguments, env = spelled(spelling, tmp_path, values)
        with daemon(tmp_path / "data", *arguments, env=env) as one:
            one.until(lambda: "is ready as server in" in one.log, "a server without a worker")
            assert workers(one) == {}
            assert one.call("GET", "/update")[1]["checked_at"] is None
    assert feed.asked == []


@pytest.mark.parametrize("spelling", ["flag", "environment"])
def test_config_file_names_where_the_other_options_are(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"disable_worker": True}))
    arguments, env = spelled(spelling, tmp_path, {"config_file": tmp_path / "c.yaml"})
    with daemon(tmp_path / "data", *arguments, env=env) as one:
        one.until(lambda: "is ready as server in" in one.log, "a server without a worker")


@pytest.mark.parametrize("spelling", shortly("file"))
def test_ssl_keyfile_and_ssl_certfile_make_it_speak_tls(tmp_path: Path, spelling: str) -> None:
    certificate, key = make_certificate(tmp_path, "server")
    values = {"ssl_certfile": certificate, "ssl_keyfile": key, "disable_worker": True}
    arguments, env = spelled(spelling, tmp_path, values)
    with daemon(tmp_path / "data", *arguments, env=env, trust=certificate) as one:
        assert one.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"{one.url}/readyz", timeout=WITHIN, context=context) as answer:
            assert answer.status == 200


def test_what_a_server_makes_up_itself_is_kept_from_others_and_serves_as_if_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with daemon(data, "--disable-worker") as one:
        for name in ("token", "jwt_secret_key", "initial_admin_password"):
            assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
            assert (data / name).read_text().strip() not in one.log
        request = {"name": "w", "worker_uuid": "0" * 32}
        token = (data / "token").read_text().strip()
        assert one.call("POST", "/v1/workers", request, {"authorization": f"Bearer {token}"})[0] == 200
        login = {"username": "admin", "password": (data / "initial_admin_password").read_text().strip()}
        form = urllib.parse.urlencode(login).encode()
        with urllib.request.urlopen(f"{one.url}/auth/login", data=form, timeout=WITHIN) as answer:
            assert answer.status == 200


def test_reset_admin_password_gives_a_new_one_that_must_be_changed(tmp_path: Path) -> None:
    with daemon(tmp_path / "data", "--disable-worker", "--bootstrap-password", "First-Password-1") as one:
        command = [sys.executable, "-m", "gpustack", "reset-admin-password", "--server-url", one.url]
        ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.startswith("The new password of admin is: ")
        form = urllib.parse.urlencode(
            {"username": "admin", "password": ran.stdout.rpartition(" ")[2].strip()}
        )
        with urllib.request.urlopen(f"{one.url}/auth/login", data=form.encode(), timeout=WITHIN) as answer:
            assert answer.status == 200
        assert one.call("GET", "/v1/users/1")[1]["require_password_change"] is True


def test_the_limit_of_open_files_is_raised(tmp_path: Path) -> None:
    """To what the system allows, at most to the number that is documented."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65535 if hard == resource.RLIM_INFINITY else min(65535, hard)
    with daemon(tmp_path / "data", "--disable-worker") as one:
        limits = Path(f"/proc/{one.process.pid}/limits").read_text()
        found = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        assert int(found.split()[3]) >= max(wanted, min(soft, wanted))


def test_the_other_prefix_of_variables_still_works_and_is_said_to_go(tmp_path: Path) -> None:
    with daemon(tmp_path / "data", env={"GPU_STACK_DISABLE_WORKER": "true"}) as one:
        one.until(lambda: "is ready as server in" in one.log, "a server without a worker")
        assert "Deprecated spellings that will go" in one.log

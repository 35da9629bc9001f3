"""How the daemon stops and refuses to start, as far as it can be told without running it long."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gpustack.cli import start as start_module
from gpustack.cli.daemon.listener import listener_specs
from gpustack.cli.start import stop_budget
from gpustack.config.options import Options
from gpustack.store import store
from gpustack.worker import membership
from tests.config.loading import loaded

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("unit", ["gpustack.service", "gpustack-worker.service"])
def test_all_deadlines_of_a_stop_add_up_to_less_than_systemd_waits(unit: str) -> None:
    text = (ROOT / "contrib" / "systemd" / unit).read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert found is not None
    assert sum(stop_budget(Options()).values()) < int(found[1])


def test_what_is_too_heavy_to_be_asked_takes_as_long_as_it_is_said_to() -> None:
    assert start_module.GOODBYE_SECONDS == membership._GOODBYE_WITHIN
    assert start_module.FLUSH_SECONDS == store.FLUSH_SECONDS


SHARED = "postgresql://u:p@db.example/gpustack"


@pytest.mark.parametrize(
    ("argv", "listens"),
    [
        ([], "127.0.0.1"),
        (["--database-url", SHARED], "0.0.0.0"),
        (["--database-url", SHARED, "--host", "127.0.0.1"], "127.0.0.1"),
        (["--database-url", SHARED, "--host", "10.0.0.5"], "0.0.0.0"),
        (["--database-url", SHARED, "--worker-ip", "10.0.0.6"], "10.0.0.6"),
        (["--server-url", "http://10.0.0.5", "--token", "t"], "0.0.0.0"),
    ],
)
def test_a_worker_beside_its_server_is_reached_from_outside_only_where_other_servers_may_be(
    argv: list[str], listens: str
) -> None:
    (spec,) = [spec for spec in listener_specs(loaded(*argv)) if spec.name == "worker"]
    assert spec.host == listens


def start(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpustack", "start", "--data-dir", str(data_dir), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("option", ["--port", "--worker-port"])
def test_a_taken_port_is_one_sentence_with_the_option_to_change(tmp_path: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        others = {"--port": "0", "--worker-port": "0", option: port}
        given = [word for pair in others.items() for word in pair]
        ended = start(tmp_path / "data", "--host", "127.0.0.1", *given)
    assert ended.returncode == 1
    assert option in ended.stderr and port in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_database_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "database.db").write_bytes(b"this is not a database, and longer than a header" * 100)
    ended = start(data, "--host", "127.0.0.1", "--port", "0", "--disable-worker")
    assert ended.returncode == 1
    assert "database.db" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_all_faults_of_a_configuration_come_at_once_with_exit_code_2(tmp_path: Path) -> None:
    ended = start(
        tmp_path / "data", "--port", "99999", "--service-port-range", "9-1", "--ssl-keyfile", "/nowhere"
    )
    assert ended.returncode == 2
    for word in ("--port", "--service-port-range", "--ssl-keyfile"):
        assert word in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()

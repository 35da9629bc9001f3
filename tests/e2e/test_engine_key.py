"""A real engine of a real daemon: of no use to other users of the machine, nor to pages in their browsers."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.daemon import WITHIN, Daemon, daemon

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 4}
PAGE = {"origin": "http://page.example", "content-type": "text/plain"}
REBOUND = {"host": "page.example:40000", "origin": "http://page.example:40000"}


def direct(
    port: int, path: str, body: object = None, headers: Mapping[str, str] | None = None, method: str = ""
) -> tuple[int, Mapping[str, str], str]:
    """Asks the engine past the gateway."""
    connection = HTTPConnection("127.0.0.1", port, timeout=WITHIN)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method or ("GET" if body is None else "POST"), path, data, dict(headers or {}))
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, told, answer.read().decode()
    finally:
        connection.close()


def keys_of(one: Daemon) -> list[str]:
    files = (one.data_dir / "run").glob("instance-*.json")
    return [json.loads(file.read_text())["secrets"]["api_key"] for file in files]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine-key") / "data"


@pytest.fixture(scope="module")
def running(folder: Path, tiny_model: Path) -> Iterator[Daemon]:
    with daemon(folder, "--debug") as one:
        body = {"name": "tiny", "source": "local_path", "local_path": str(tiny_model)}
        assert one.call("POST", "/v1/models", body)[0] == 200
        one.running("tiny")
        yield one


@pytest.mark.attack("engine")
@pytest.mark.parametrize("headers", [{}, PAGE, REBOUND, {"authorization": "Bearer x"}, {"x-api-key": "x"}])
def test_nobody_but_the_gateway_is_answered_by_an_engine(running: Daemon, headers: dict[str, str]) -> None:
    (instance,) = running.running("tiny")
    port = instance["port"]
    for path in ("/v1/chat/completions", "/completion", "/v1/embeddings", "/tokenize", "/apply-template"):
        assert direct(port, path, CHAT, headers)[0] == 401, path
    for path in ("/slots", "/props", "/metrics"):
        assert direct(port, path, None, headers)[0] == 401, path
    assert running.call("POST", "/v1/chat/completions", CHAT)[0] == 200


@pytest.mark.attack("engine")
def test_a_page_cannot_even_read_which_model_an_engine_has(running: Daemon) -> None:
    (instance,) = running.running("tiny")
    for path in ("/health", "/v1/models"):
        assert "access-control-allow-origin" not in direct(instance["port"], path, None, PAGE)[1]
    asks = {**PAGE, "access-control-request-method": "POST"}
    asked = direct(instance["port"], "/v1/chat/completions", None, asks, "OPTIONS")
    assert "access-control-allow-origin" not in asked[1]


def test_the_exporter_of_the_worker_still_sees_the_metrics_of_the_engine(running: Daemon) -> None:
    running.call("POST", "/v1/chat/completions", CHAT)
    _, _, text = direct(int(running.exporter("worker").rsplit(":", 1)[1]), "/metrics")
    assert any(line.startswith("gpustack:generation_tokens_total{") for line in text.splitlines()), text


@pytest.mark.attack("secret")
def test_the_key_of_an_engine_is_in_no_answer_no_log_and_no_command_line(running: Daemon) -> None:
    (key,) = keys_of(running)
    (instance,) = running.running("tiny")
    logs = f"/v1/model-instances/{instance['id']}/logs"
    for path in (
        "/v1/models",
        "/v1/model-instances",
        "/v1/workers",
        "/v1/audit-events",
        "/debug/tasks",
        logs,
    ):
        assert key not in json.dumps(running.call("GET", path)[1]), path
    assert key not in running.log
    assert key not in Path(f"/proc/{instance['pid']}/cmdline").read_text()
    engine_log = running.data_dir / "log" / "serve" / f"{instance['id']}.log"
    assert key not in engine_log.read_text(errors="replace")


def test_keys_outlive_the_daemon_and_the_secret_of_the_server(running: Daemon, folder: Path) -> None:
    """The last of this file: it ends the daemon."""
    (before,) = running.running("tiny")
    running.process.send_signal(signal.SIGKILL)
    running.process.wait(WITHIN)
    (folder / "jwt_secret_key").write_text("another secret that somebody has put here")
    with daemon(folder) as again:
        assert again.call("POST", "/v1/chat/completions", CHAT)[0] == 200
        (after,) = again.running("tiny")
        assert after["pid"] == before["pid"]
        assert direct(after["port"], "/v1/chat/completions", CHAT)[0] == 401

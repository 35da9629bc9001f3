"""Engines outlive the daemon, a plain stop ends them, and another machine can join."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest

from tests.daemon import Daemon, daemon

ASK = {"messages": [{"role": "user", "content": "Who are you?"}]}


def deploy(one: Daemon, model: Path, name: str = "tiny", **more: object) -> None:
    body = {"name": name, "source": "local_path", "local_path": str(model), **more}
    status, answer = one.call("POST", "/v1/models", body)
    assert status == 200, answer


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def ask_engine(port: int, data_dir: Path) -> str:
    """With the key of the engine, as its next daemon finds it."""
    (state,) = (data_dir / "run").glob("**/*.json")
    key = json.loads(state.read_text())["secrets"]["api_key"]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps({"model": "tiny", **ASK}).encode(),
        headers={"content-type": "application/json", "authorization": f"Bearer {key}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def test_a_killed_daemon_leaves_its_engine_and_the_next_one_adopts_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    data = tmp_path / "data"
    with daemon(data) as first:
        deploy(first, tiny_model)
        (before,) = first.running("tiny")
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        assert "tiny model" in ask_engine(before["port"], data), "the engine serves while there is no daemon"
    with daemon(data) as second:
        (after,) = second.running("tiny")
        assert (after["pid"], after["port"]) == (before["pid"], before["port"])
        assert after["restart_count"] == 0
        assert second.call("POST", "/v1/chat/completions", {"model": "tiny", **ASK})[0] == 200
        assert second.stop() == 0
    assert not alive(before["pid"]), "a plain stop ends the engine"


def test_an_engine_whose_model_went_while_nobody_looked_is_ended(tmp_path: Path, tiny_model: Path) -> None:
    """The daemon dies right after a model was deleted: its successor ends the engine."""
    data = tmp_path / "data"
    with daemon(data) as first:
        deploy(first, tiny_model)
        (instance,) = first.running("tiny")
        (model,) = first.call("GET", "/v1/models")[1]["items"]
        first.stop(signal.SIGKILL)
    with daemon(data, "--disable-worker") as alone:
        assert alone.call("DELETE", f"/v1/models/{model['id']}")[0] == 200
    assert alive(instance["pid"])
    with daemon(data) as second:
        second.until(lambda: not alive(instance["pid"]), "the end of the orphan")
        second.until(lambda: not second.instances(), "the end of its record")


def test_a_stream_under_way_when_the_daemon_stops_is_finished(tmp_path: Path, tiny_model: Path) -> None:
    with daemon(tmp_path / "data") as one:
        deploy(one, tiny_model)
        one.running("tiny")
        request = urllib.request.Request(
            f"{one.url}/v1/chat/completions",
            data=json.dumps({"model": "tiny", "stream": True, **ASK}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            first = answer.readline()
            assert first.startswith(b"data:")
            one.process.send_signal(signal.SIGTERM)
            rest = answer.read()
        assert rest.rstrip().endswith(b"data: [DONE]")
        assert one.process.wait(60) == 0


def test_a_client_that_leaves_frees_the_engine(tmp_path: Path) -> None:
    import sys

    command = (
        f"{sys.executable} -m tests.fakes.engine --port {{port}} --slow-token 0.2 --reply {'x ' * 500!r}"
    )
    with daemon(tmp_path / "data") as one:
        status, answer = one.call(
            "POST",
            "/v1/models",
            {
                "name": "slow",
                "source": "local_path",
                "local_path": "/nonexistent",
                "backend": "custom",
                "command": command,
                "health_path": "/health",
                "env": {"PYTHONPATH": str(Path(__file__).parents[2])},
            },
        )
        assert status == 200, answer
        (instance,) = one.running("slow")
        host, port = one.url.removeprefix("http://").split(":")
        body = json.dumps({"model": "slow", "stream": True, **ASK}).encode()
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            assert b"200" in client.recv(4096)

        def aborted() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{instance['port']}/_control", timeout=30) as seen:
                return bool(json.load(seen).get("aborted"))

        one.until(aborted, "the engine noticing that the client left")


def test_a_second_machine_joins_and_serves(tmp_path: Path, tiny_model: Path) -> None:
    with daemon(tmp_path / "server", "--disable-worker") as server:
        token = (server.data_dir / "token").read_text().strip()
        deploy(server, tiny_model)
        server.until(
            lambda: [i for i in server.instances("tiny") if "worker" in i["state_message"]],
            "a reason to wait",
        )
        with daemon(
            tmp_path / "worker",
            "--server-url", server.url, "--token", token, "--worker-name", "second", "--worker-ip", "127.0.0.1",
        ) as worker:  # fmt: skip
            (instance,) = server.running("tiny")
            assert instance["worker_name"] == "second"
            assert server.call("POST", "/v1/chat/completions", {"model": "tiny", **ASK})[0] == 200
            status, text = server.call("GET", f"/v1/model-instances/{instance['id']}/logs?tail=10")
            assert status == 200 and text
            assert worker.stop() == 0
        assert not alive(instance["pid"])


def test_a_worker_that_stops_says_so_and_gets_nothing_new(tmp_path: Path, tiny_model: Path) -> None:
    with daemon(tmp_path / "server", "--disable-worker") as server:
        token = (server.data_dir / "token").read_text().strip()
        join = ("--server-url", server.url, "--token", token, "--worker-ip", "127.0.0.1")

        def condition() -> tuple[str, str]:
            (worker,) = server.call("GET", "/v1/workers")[1]["items"]
            return worker["state"], worker["state_message"]

        def looked_at() -> bool:
            (worker,) = server.call("GET", "/v1/workers")[1]["items"]
            return bool(worker["status"].get("engines"))

        with daemon(tmp_path / "worker", *join) as worker:
            server.until(lambda: server.call("GET", "/v1/workers")[1]["items"], "the worker")
            server.until(looked_at, "its first status")
            assert worker.stop() == 0
        server.until(lambda: condition()[0] == "not_ready", "the word that it stopped")
        assert "stopped" in condition()[1]
        deploy(server, tiny_model)
        server.until(
            lambda: [i for i in server.instances("tiny") if "stopped" in i["state_message"]],
            "the reason to wait",
        )
        with daemon(tmp_path / "worker", *join):
            server.running("tiny")


def test_a_wrong_token_does_not_let_a_machine_join(tmp_path: Path) -> None:
    with (
        daemon(tmp_path / "server", "--disable-worker") as server,
        daemon(
            tmp_path / "worker", "--server-url", server.url, "--token", "wrong", "--worker-ip", "127.0.0.1"
        ) as worker,
    ):
        worker.until(lambda: "--token" in worker.log, "the sentence about the token")
        assert server.call("GET", "/v1/workers")[1]["items"] == []


@pytest.mark.parametrize("rounds", [3])
def test_no_acknowledged_write_is_lost_when_the_daemon_is_killed(tmp_path: Path, rounds: int) -> None:
    data = tmp_path / "data"
    acknowledged: list[str] = []
    for number in range(rounds):
        with daemon(data, "--disable-worker") as one:
            killer = threading.Timer(0.5, one.process.kill)
            killer.start()
            try:
                for index in range(10_000):
                    name = f"m-{number}-{index}"
                    body = {"name": name, "source": "local_path", "local_path": "/m.gguf", "replicas": 0}
                    if one.call("POST", "/v1/models", body)[0] == 200:
                        acknowledged.append(name)
            except OSError:
                pass
            finally:
                killer.join()
    assert len(acknowledged) > rounds
    with daemon(data, "--disable-worker") as last:
        first_page = last.call("GET", "/v1/models?perPage=100&page=1")[1]
        names = {item["name"] for item in first_page["items"]}
        for page in range(2, first_page["pagination"]["totalPage"] + 1):
            names |= {
                item["name"] for item in last.call("GET", f"/v1/models?perPage=100&page={page}")[1]["items"]
            }
    assert set(acknowledged) <= names


def test_a_second_daemon_on_the_same_directory_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with daemon(tmp_path / "data", "--disable-worker") as one:
        import sys

        second = subprocess.run(
            [sys.executable, "-m", "gpustack", "start", "--data-dir", str(one.data_dir), "--port", "0"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert second.returncode == 1
        assert str(one.process.pid) in second.stderr and "--data-dir" in second.stderr
        assert "Traceback" not in second.stderr

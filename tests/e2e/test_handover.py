"""SIGHUP: the program as now installed takes over; nobody is refused, no engine ends, no stream is cut."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest

from tests.daemon import WITHIN, Daemon, daemon
from tests.needs import requires, requires_root
from tests.nursery.programs import is_running

ASK = {"messages": [{"role": "user", "content": "Who are you?"}]}


def holder(data_dir: Path) -> int:
    """The process that holds the data directory."""
    return int((data_dir / "lock").read_text().strip() or 0)


@contextmanager
def ending(data_dir: Path) -> Iterator[None]:
    """The daemon that took over is no child of the test: it is ended by its number."""
    try:
        yield
    finally:
        pid = holder(data_dir)
        if is_running(pid) and b"gpustack" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + WITHIN
            while is_running(pid) and time.monotonic() < end:
                time.sleep(0.05)


@attrs.define
class Knocking:
    """Clients that each make a new connection, one after the other, until told to stop."""

    url: str
    answered: int = 0
    faults: list[str] = attrs.field(factory=list)
    _over: threading.Event = attrs.field(factory=threading.Event)

    def knock(self, path: str, body: Any) -> None:
        data = None if body is None else json.dumps(body).encode()
        while not self._over.is_set():
            request = urllib.request.Request(
                self.url + path,
                data=data,
                headers={"content-type": "application/json", "connection": "close"},
            )
            try:
                with urllib.request.urlopen(request, timeout=WITHIN) as answer:
                    answer.read()
                self.answered += 1
            except OSError as error:
                self.faults.append(f"{path}: {error!r}")

    @contextmanager
    def going_on(self) -> Iterator[None]:
        tasks = [
            threading.Thread(target=self.knock, args=("/v1/chat/completions", {"model": "tiny", **ASK})),
            threading.Thread(target=self.knock, args=("/v1/models", None)),
            threading.Thread(target=self.knock, args=("/healthz", None)),
        ]
        for task in tasks:
            task.start()
        try:
            yield
        finally:
            self._over.set()
            for task in tasks:
                task.join()


def counted(data_dir: Path, name: str) -> tuple[int, int]:
    with closing(sqlite3.connect(f"file:{data_dir / 'database.db'}?mode=ro", uri=True)) as reader:
        row = reader.execute(
            "select sum(request_count), sum(completion_token_count) from model_usages where model_name = ?",
            (name,),
        ).fetchone()
    return tuple(value or 0 for value in row)


def slow_model() -> dict[str, Any]:
    words = " ".join(["word"] * 20)
    command = f"{sys.executable} -m tests.fakes.engine --port {{port}} --slow-token 0.15 --reply '{words}'"
    return {
        "name": "slow",
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": command,
        "health_path": "/health",
        "env": {"PYTHONPATH": str(Path(__file__).parents[2])},
    }


def test_a_reload_refuses_nobody_ends_no_engine_and_cuts_no_stream(tmp_path: Path, tiny_model: Path) -> None:
    data = tmp_path / "data"
    with daemon(data) as one, ending(data):
        body = {"name": "tiny", "source": "local_path", "local_path": str(tiny_model)}
        assert one.call("POST", "/v1/models", body)[0] == 200
        assert one.call("POST", "/v1/models", slow_model())[0] == 200
        (engine,) = one.running("tiny")
        one.running("slow")
        old = one.process.pid
        knocking = Knocking(one.url)
        request = urllib.request.Request(
            f"{one.url}/v1/chat/completions",
            data=json.dumps({"model": "slow", "stream": True, **ASK}).encode(),
            headers={"content-type": "application/json"},
        )
        with knocking.going_on(), urllib.request.urlopen(request, timeout=WITHIN) as stream:
            first = stream.readline()
            assert first.startswith(b"data:")
            one.process.send_signal(signal.SIGHUP)
            one.until(lambda: holder(data) != old, "the new daemon")
            rest = stream.read()
            assert rest.rstrip().endswith(b"data: [DONE]") and rest.count(b"word") >= 19
            before = knocking.answered
            assert one.process.wait(WITHIN) == 0, one.log
            end = time.monotonic() + WITHIN
            while knocking.answered < before + 10 and time.monotonic() < end:
                time.sleep(0.05)
        assert not knocking.faults, knocking.faults
        assert knocking.answered > before, "the new daemon answers"
        (after,) = [i for i in _instances(one.url) if i["model_name"] == "tiny"]
        assert (after["pid"], after["state"], after["restart_count"]) == (engine["pid"], "running", 0)
        # What the old daemon counted last, when the records were the new one's already, is not lost.
        end = time.monotonic() + WITHIN
        while counted(data, "slow")[0] < 1 and time.monotonic() < end:
            time.sleep(0.1)
        assert counted(data, "slow") == (1, 20)


def _instances(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/v1/model-instances", timeout=WITHIN) as answer:
        found: list[dict[str, Any]] = json.load(answer)["items"]
    return found


def test_a_new_daemon_that_cannot_start_leaves_the_old_one_serving(tmp_path: Path) -> None:
    data, config = tmp_path / "data", tmp_path / "config.yaml"
    config.write_text("debug: false\n")
    with daemon(data, "--config-file", str(config), "--disable-worker") as one, ending(data):
        old = holder(data)
        config.write_text("no_such_option: 1\n")
        one.process.send_signal(signal.SIGHUP)
        one.until(lambda: "this one goes on" in one.log, "the sentence")
        assert "no_such_option" in one.log
        assert one.call("GET", "/readyz")[0] == 200
        assert holder(data) == old == one.process.pid
        config.write_text("debug: false\n")
        one.process.send_signal(signal.SIGHUP)
        one.until(lambda: "Handed over" in one.log, "the second try")
        assert one.process.wait(WITHIN) == 0
        with urllib.request.urlopen(f"{one.url}/readyz", timeout=WITHIN) as answer:
            assert answer.status == 200


def test_a_stop_while_the_new_daemon_loads_is_a_stop(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with daemon(data, "--disable-worker") as one, ending(data):
        one.process.send_signal(signal.SIGHUP)
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(WITHIN) == 0
        host, port = one.url.removeprefix("http://").split(":")

        def refused() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) != 0

        end = time.monotonic() + WITHIN
        while not refused() and time.monotonic() < end:
            time.sleep(0.05)
        assert refused(), "nobody holds the port"


def test_a_stop_in_the_middle_of_handing_over_is_the_next_daemons(tmp_path: Path, tiny_model: Path) -> None:
    """It was forgotten, and had ended the engines that the next daemon was to adopt."""
    data = tmp_path / "data"
    with daemon(data) as one, ending(data):
        body = {"name": "tiny", "source": "local_path", "local_path": str(tiny_model)}
        assert one.call("POST", "/v1/models", body)[0] == 200
        (engine,) = one.running("tiny")
        host, port = one.url.removeprefix("http://").split(":")
        # Somebody has just come in and says nothing yet: the old daemon waits for them before it lets go.
        with socket.create_connection((host, int(port))):
            one.process.send_signal(signal.SIGHUP)
            one.until(lambda: "is ready and takes over" in one.log, "the new daemon")
            said = re.findall(r"is ready and takes over: pid=(\d+)", one.log)
            os.kill(int(said[-1]), signal.SIGTERM)  # as Ctrl-C in a terminal, it may go to both
            one.process.send_signal(signal.SIGTERM)
            one.process.send_signal(signal.SIGTERM)  # nor does impatience leave an engine behind
            assert one.process.wait(WITHIN) == 0
        assert "Handed over" in one.log
        next_pid = int(one.log.rpartition("Handed over: pid=")[2].split()[0])
        end = time.monotonic() + WITHIN
        while (is_running(next_pid) or is_running(engine["pid"])) and time.monotonic() < end:
            time.sleep(0.05)
        assert not is_running(next_pid), one.log
        assert not is_running(engine["pid"]), "the stop ended it in order"
        assert list((data / "cache").glob("**/*.state")) == []


def test_a_reload_says_that_it_cannot_change_the_host(tmp_path: Path) -> None:
    data, config = tmp_path / "data", tmp_path / "config.yaml"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config.write_text(f"host: 127.0.0.1\nport: {port}\n")
    with (
        daemon(data, "--config-file", str(config), "--disable-worker", "--port", str(port)) as one,
        ending(data),
    ):
        config.write_text(f"host: 0.0.0.0\nport: {port}\n")
        one.process.send_signal(signal.SIGHUP)
        one.until(lambda: "this one goes on" in one.log, "the sentence")
        assert "--host was changed from 127.0.0.1 to 0.0.0.0" in one.log
        assert one.call("GET", "/readyz")[0] == 200
        config.write_text(f"host: 127.0.0.2\nport: {port}\n")  # free beside the other: taken up
        one.process.send_signal(signal.SIGHUP)
        assert one.process.wait(WITHIN) == 0
        with urllib.request.urlopen(f"http://127.0.0.2:{port}/readyz", timeout=WITHIN) as answer:
            assert answer.status == 200


def test_what_lies_in_the_working_directory_is_not_run(tmp_path: Path, tiny_model: Path) -> None:
    """Neither by a hand-over, nor by an engine, nor by a look at the hardware."""
    there = tmp_path / "there"
    trap = "from pathlib import Path\nPath({!r}).touch()\nraise SystemExit(3)\n"
    for name in (
        "gpustack/__init__.py",
        "gpustack/__main__.py",
        "trio.py",
        "attrs.py",
        "json.py",
        "docopt.py",
    ):
        path = there / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(trap.format(str(tmp_path / "sprung")))
    data = tmp_path / "data"
    with daemon(data, cwd=there) as one, ending(data):
        body = {"name": "tiny", "source": "local_path", "local_path": str(tiny_model)}
        assert one.call("POST", "/v1/models", body)[0] == 200
        one.running("tiny")
        one.process.send_signal(signal.SIGHUP)
        assert one.process.wait(WITHIN) == 0, one.log
        assert holder(data) != one.process.pid
    assert not (tmp_path / "sprung").exists()


def test_signals_that_were_ignored_before_us_do_no_harm(tmp_path: Path, tiny_model: Path) -> None:
    """As from a program that lets the kernel reap its children, and one that blocks signals."""

    def inherit() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP))

    data = tmp_path / "data"
    with daemon(data, first=inherit) as one, ending(data):
        body = {"name": "tiny", "source": "local_path", "local_path": str(tiny_model)}
        assert one.call("POST", "/v1/models", body)[0] == 200
        (engine,) = one.running("tiny")
        os.kill(engine["pid"], signal.SIGKILL)

        def said() -> bool:
            return any("SIGKILL" in (i["state_message"] or "") for i in one.instances("tiny"))

        one.until(said, "how the engine ended")
        assert one.stop() == 0, one.log


@pytest.mark.root
def test_process_1_of_a_container_hands_over_to_nobody_and_reaps_orphans(tmp_path: Path) -> None:
    """In a PID namespace, as in a container without an init."""
    requires_root()
    namespace = [requires("unshare", apt="util-linux"), "--pid", "--fork", "--kill-child", "--mount-proc"]
    orphan = "import os; os.fork() or os.setsid() or os.fork() or os.execlp('sleep', 'sleep', '0.1')"
    with daemon(tmp_path / "data", "--disable-worker", before=namespace) as one:
        (inside,) = children_of(one.process.pid)
        os.kill(inside, signal.SIGHUP)
        one.until(lambda: "so it cannot hand over" in one.log, "the sentence")
        assert one.call("GET", "/readyz")[0] == 200
        enter = ["nsenter", "--target", str(inside), "--pid", "--mount"]
        subprocess.run([*enter, sys.executable, "-c", orphan], check=True)
        one.until(lambda: children_of(inside), "the orphan, as a child of process 1")
        one.until(lambda: not children_of(inside), "its end")
        os.kill(inside, signal.SIGTERM)
        assert one.process.wait(WITHIN) == 0, one.log


def children_of(pid: int) -> list[int]:
    """The children of a process, ended ones too."""
    return [child.pid for child in psutil.Process(pid).children()]


def test_a_worker_of_its_own_hands_over_too(tmp_path: Path, tiny_model: Path) -> None:
    with daemon(tmp_path / "server", "--disable-worker") as server:
        token = (server.data_dir / "token").read_text().strip()
        data = tmp_path / "worker"
        join = ("--server-url", server.url, "--token", token, "--worker-ip", "127.0.0.1")
        with daemon(data, *join) as worker, ending(data):
            body = {"name": "tiny", "source": "local_path", "local_path": str(tiny_model)}
            assert server.call("POST", "/v1/models", body)[0] == 200
            (before,) = server.running("tiny")
            worker.process.send_signal(signal.SIGHUP)
            assert worker.process.wait(WITHIN) == 0
            _answers(server)
            (after,) = server.running("tiny")
            assert after["pid"] == before["pid"]


def _answers(server: Daemon) -> None:
    def ask() -> bool:
        return server.call("POST", "/v1/chat/completions", {"model": "tiny", **ASK})[0] == 200

    server.until(ask, "an answer through the worker's new daemon")

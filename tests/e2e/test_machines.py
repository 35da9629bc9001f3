"""Machines that vanish, as they look from outside: real daemons, and the engines that they ran."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gpustack.server.join import COPIED
from tests.child import environment
from tests.daemon import Daemon, daemon
from tests.options.spelling import SPELLINGS, spelled

ASK = {"messages": [{"role": "user", "content": "Who are you?"}]}
SOON = ("--heartbeat-interval", "1", "--heartbeat-timeout", "8", "--reschedule-grace", "900")
"""Silence is noticed soon, and nothing is given up for it while a test runs."""


def fake_model(name: str, replicas: int = 1, *more: str) -> dict[str, Any]:
    """A deployment whose engine is ours: it answers at once and holds nothing."""
    return {
        "name": name,
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": " ".join([sys.executable, "-m", "tests.fakes.engine", "--port", "{port}", *more]),
        "health_path": "/health",
        "env": {"PYTHONPATH": str(Path(__file__).parents[2])},
        "replicas": replicas,
    }


def deploy(server: Daemon, model: dict[str, Any]) -> int:
    status, answer = server.call("POST", "/v1/models", model)
    assert status == 200, answer
    return int(answer["id"])


def chat(server: Daemon, model: str) -> tuple[int, Any]:
    return server.call("POST", "/v1/chat/completions", {"model": model, **ASK})


@contextmanager
def server_of(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    with daemon(folder / "server", "--disable-worker", *SOON, *options, env=env) as server:
        yield server


@contextmanager
def worker_of(
    server: Daemon,
    name: str,
    *options: str,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Daemon]:
    """A machine that has joined and told what it has."""
    token = (server.data_dir / "token").read_text().strip()
    data = folder or server.data_dir.parent / name
    join = ("--server-url", server.url, "--token", token, "--worker-ip", "127.0.0.1", "--worker-name", name)
    with daemon(data, *join, *options, env=env) as worker:
        server.until(lambda: _is_ready(server, name), f"worker {name}")
        yield worker


def worker_record(server: Daemon, name: str) -> dict[str, Any] | None:
    items = server.call("GET", "/v1/workers")[1]["items"]
    return next((item for item in items if item["name"] == name), None)


def _is_ready(server: Daemon, name: str) -> bool:
    record = worker_record(server, name)
    return record is not None and record["state"] == "ready" and bool(record["status"].get("engines"))


def instance_on(server: Daemon, worker: str) -> dict[str, Any] | None:
    return next((i for i in server.instances() if i["worker_name"] == worker), None)


def state_on(server: Daemon, worker: str) -> str | None:
    found = instance_on(server, worker)
    return None if found is None else str(found["state"])


@pytest.fixture
def engines() -> Iterator[list[dict[str, Any]]]:
    """Engines that a killed daemon left, ended whatever becomes of the test."""
    left: list[dict[str, Any]] = []
    yield left
    import contextlib
    import os

    for one in left:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one["pid"], signal.SIGKILL)


def test_what_ran_on_a_killed_worker_is_unreachable_until_its_daemon_is_back(
    tmp_path: Path, engines: list[dict[str, Any]]
) -> None:
    with server_of(tmp_path) as server:
        metrics = server.exporter("server") + "/metrics"
        with worker_of(server, "lost") as worker:
            model = deploy(server, fake_model("m"))
            (before,) = server.running("m")
            engines.append(before)
            assert chat(server, "m")[0] == 200
            worker.stop(signal.SIGKILL)
            server.until(lambda: state_on(server, "lost") == "unreachable", "what ran there")
        found = instance_on(server, "lost")
        assert found is not None and found["state_message"].startswith(
            "Worker lost has not been heard since "
        )
        server.until(
            lambda: server.call("GET", f"/v1/models/{model}")[1]["ready_replicas"] == 0, "none ready"
        )
        status, answer = chat(server, "m")
        assert status == 503
        assert "Worker lost has not been heard since" in answer["error"]["message"]

        def counted() -> bool:
            with urllib.request.urlopen(metrics, timeout=30) as page:
                lines = page.read().decode().splitlines()
            (running,) = [line for line in lines if line.startswith("gpustack:model_running_instances{")]
            states = [line for line in lines if line.startswith("gpustack:model_instance_status{")]
            return running.endswith(" 0.0") and all('state="unreachable"' in line for line in states)

        server.until(counted, "the metrics")
        with worker_of(server, "lost"):
            (after,) = server.running("m")
            assert (after["pid"], after["id"]) == (before["pid"], before["id"]), "the same engine, adopted"
            assert chat(server, "m")[0] == 200


def test_requests_go_to_the_replica_that_is_left_when_a_worker_is_killed(
    tmp_path: Path, engines: list[dict[str, Any]]
) -> None:
    with server_of(tmp_path) as server, worker_of(server, "stays"), ExitStack() as later:
        lost = later.enter_context(worker_of(server, "lost"))
        deploy(server, fake_model("m", 2))
        engines += server.running("m", 2)
        assert {one["worker_name"] for one in engines} == {"stays", "lost"}
        lost.stop(signal.SIGKILL)
        assert not [answer for status, answer in (chat(server, "m") for _ in range(20)) if status != 200]
        server.until(lambda: state_on(server, "lost") == "unreachable", "what ran on the killed one")
        assert not [answer for status, answer in (chat(server, "m") for _ in range(20)) if status != 200]
        assert state_on(server, "stays") == "running"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_stopped_worker_grace_is_how_long_a_stopped_worker_keeps_its_places(
    tmp_path: Path, spelling: str
) -> None:
    """By default that is half a minute; without it, the five minutes of one that was lost."""
    arguments, env = spelled(spelling, tmp_path, {"stopped_worker_grace": 0})
    with server_of(tmp_path, *arguments, env=env) as server, worker_of(server, "stops") as stops:
        deploy(server, fake_model("m"))
        server.running("m")
        with worker_of(server, "stays"):
            assert stops.stop() == 0
            server.until(lambda: state_on(server, "stays") == "running", "the replica on the one that stays")
            assert chat(server, "m")[0] == 200


def test_a_worker_that_is_restarted_comes_back_to_its_places(tmp_path: Path) -> None:
    with server_of(tmp_path, "--stopped-worker-grace", "600") as server, ExitStack() as later:
        stops = later.enter_context(worker_of(server, "stops"))
        deploy(server, fake_model("m", 2))
        (kept, removed) = server.running("m", 2)
        with worker_of(server, "stays"):
            assert stops.stop() == 0
            stopped = instance_on(server, "stops")
            assert stopped is not None and "starts again with it" in stopped["state_message"]
            assert server.call("DELETE", f"/v1/model-instances/{removed['id']}")[0] == 200
            server.until(
                lambda: state_on(server, "stays") == "running", "another in place of the removed one"
            )
            assert {one["id"] for one in server.instances()} & {kept["id"], removed["id"]} == {kept["id"]}
            with worker_of(server, "stops"):
                server.running("m", 2)
                back = instance_on(server, "stops")
                assert back is not None and back["id"] == kept["id"]


def test_a_worker_that_leaves_is_emptied_before_it_ends(tmp_path: Path) -> None:
    """Somebody answers at every moment, and the replica of before ends only when the one after it runs."""
    with server_of(tmp_path) as server, worker_of(server, "leaves", "--leave") as leaves:
        deploy(server, fake_model("m"))
        server.running("m")
        with worker_of(server, "stays"):
            leaves.process.send_signal(signal.SIGTERM)
            answers = []
            while leaves.process.poll() is None and len(answers) < 10_000:
                answers.append(chat(server, "m"))
            assert leaves.process.wait(60) == 0
            assert not [answer for status, answer in answers if status != 200]
            assert "Nothing runs here any more" in leaves.log
            assert [(i["worker_name"], i["state"]) for i in server.instances()] == [("stays", "running")]
            with worker_of(server, "leaves"):
                record = worker_record(server, "leaves")
                assert record is not None and (record["draining"], record["cordoned"]) == (False, False)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_leave_empties_a_worker_first_and_leave_timeout_is_how_long_that_may_take(
    tmp_path: Path, spelling: str
) -> None:
    """By default it would wait for five minutes: there is nobody to leave anything to."""
    arguments, env = spelled(spelling, tmp_path, {"leave": True, "leave_timeout": 1})
    with server_of(tmp_path) as server, worker_of(server, "leaves", *arguments, env=env) as leaves:
        deploy(server, fake_model("m"))
        (instance,) = server.running("m")
        assert leaves.stop() == 0
        assert re.search(
            rf"Not all found a place elsewhere .*: {instance['name']}$", leaves.log, re.MULTILINE
        )
        (waiting,) = [i for i in server.instances() if i["state"] == "pending"]
        assert "worker leaves is" in waiting["state_message"].lower()


def test_workers_are_labelled_closed_drained_and_removed_by_command(tmp_path: Path) -> None:
    with server_of(tmp_path) as server, worker_of(server, "a") as first:

        def gpustack(*argv: str) -> subprocess.CompletedProcess[str]:
            env = {**environment(), "GPUSTACK_DATA_DIR": str(server.data_dir)}
            return subprocess.run(
                [sys.executable, "-m", "gpustack", "workers", *argv],
                env=env, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip

        def good(*argv: str) -> str:
            ran = gpustack(*argv)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        def bad(*argv: str) -> str:
            ran = gpustack(*argv)
            assert ran.returncode != 0 and "Traceback" not in ran.stderr
            return ran.stderr

        assert "rack=1" in good("label", "a", "rack=1", "zone=b")
        assert "zone" not in good("label", "a", "zone-")
        assert "KEY=VALUE" in bad("label", "a", "rack")
        assert "a sets os itself" in bad("label", "a", "os-")
        assert "There is no worker 'b'" in bad("cordon", "a", "b")
        assert "cordoned" not in good(), "nothing is done where one of the names is wrong"
        assert good("cordon", "a") == "a is cordoned\n"
        assert "cordoned" in good()
        assert good("uncordon", "a") == "a takes instances again\n"
        deploy(server, fake_model("m"))
        server.running("m")
        assert ": goes on here\n  Worker a is being drained" in good("drain", "--dry-run", "a")
        waits = bad("drain", "a", "--timeout=3")
        assert "a still runs m-" in waits and "Worker a is being drained" in waits
        assert chat(server, "m")[0] == 200, "nobody could take it, so it goes on"
        with worker_of(server, "b"):
            assert good("drain", "a") == "a is being drained\na is empty: nothing runs there any more\n"
            assert state_on(server, "b") == "running" and chat(server, "m")[0] == 200
            assert "Stop it first" in bad("rm", "a")
            first.stop()
            server.until(lambda: not _is_ready(server, "a"), "word that it stopped")
            assert good("rm", "a") == "a is removed\n"
            assert worker_record(server, "a") is None


def test_a_copy_of_a_worker_is_refused_and_both_sides_say_what_to_delete(tmp_path: Path) -> None:
    with server_of(tmp_path) as server, worker_of(server, "first") as first:
        token = (server.data_dir / "token").read_text().strip()
        shutil.copytree(first.data_dir, copy := tmp_path / "copy")
        join = ("--server-url", server.url, "--token", token, "--worker-ip", "127.0.0.1")
        with daemon(copy, *join) as twin:
            twin.until(lambda: "data directory of one of them is a copy" in twin.log, "the reason")
            record = worker_record(server, "first")
            assert record is not None
            there = f"127.0.0.1:{record['port']}"
            (line,) = [line for line in twin.log.splitlines() if "is a copy" in line]
            assert f"Worker first is at {there}" in line and str(copy) in line
            assert len(set(re.findall(r"127\.0\.0\.1:\d+", line))) == 2, "both addresses"
            assert "delete worker_uuid, worker_name and worker_credential" in line
            assert f"worker=first there={there}" in server.log
            admit = subprocess.run(
                [sys.executable, "-m", "gpustack", "workers", "admit", "first"],
                env={**environment(), "GPUSTACK_DATA_DIR": str(server.data_dir)},
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert admit.returncode == 1 and "would void its credential" in admit.stderr
        deploy(server, fake_model("m"))
        server.running("m")
        assert chat(server, "m")[0] == 200
        assert first.log.count("Joined") == 1, "who was there first has noticed nothing"
        for name in COPIED:
            (copy / name).unlink()
        with daemon(copy, *join) as own:
            own.until(lambda: "Joined" in own.log, "that it joins as a worker of its own")
            assert server.call("GET", "/v1/workers")[1]["pagination"]["total"] == 2


def test_a_worker_that_is_killed_and_started_at_another_port_is_no_copy(tmp_path: Path) -> None:
    with server_of(tmp_path) as server:
        for times in (1, 2):
            with worker_of(server, "a") as worker:
                worker.until(lambda: worker.log.count("Joined") == times, "that it joins")  # noqa: B023  # now
                worker.stop(signal.SIGKILL)
        assert "is a copy" not in worker.log

